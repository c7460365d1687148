from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.errors import PoolError
from lloss.pools import ArrayPool, Chunk, Pool, open_pool


def _images(count: int = 40, *shape: int) -> NDArray[np.uint8]:
    shape = shape or (5, 6, 3)
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def _chunk(pool: Pool, start: int, stop: int) -> Chunk:
    (chunk,) = pool.chunks([range(start, stop)])
    return chunk


def _saved(root: Path, images: NDArray[Any], kind: str) -> Pool:
    if kind == "held":
        return ArrayPool(images, "images")
    if kind == "npy":
        np.save(root / "a.npy", images)
        return open_pool(root / "a.npy")
    if kind == "stored":
        np.savez(root / "a.npz", labels=np.arange(3), images=images)
    else:
        np.savez_compressed(root / "a.npz", images=images)
    return open_pool(root / "a.npz")


@pytest.mark.parametrize("kind", ["held", "npy", "stored", "deflated"])
@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 6), (4, 4, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_read_in_bulk(
    tmp_path: Path, kind: str, shape: tuple[int, ...], order: Any
) -> None:
    images = np.asarray(_images(40, *shape), order=order)
    pool = _saved(tmp_path, images, kind)
    out = np.full((16, *shape), 7, np.uint8)
    assert _chunk(pool, 30, 46).read_rows(out)
    assert np.array_equal(out[:10], images[30:])
    assert (out[10:] == 7).all()
    assert np.array_equal(_chunk(pool, 8, 9).items[0].read(), images[8])


def test_rows_of_another_shape_are_left_to_the_caller(tmp_path: Path) -> None:
    images = _images()
    pool = _saved(tmp_path, images, "npy")
    for out in (
        np.zeros((16, 5, 5, 3), np.uint8),
        np.zeros((16, 5, 6), np.uint8),
        np.zeros((16, 5, 6, 3), np.int8),
        np.zeros((32, 5, 6, 3), np.uint8)[::2],
        np.zeros((16, 3, 5, 6), np.uint8).transpose(0, 2, 3, 1),
    ):
        assert not _chunk(pool, 0, 16).read_rows(out)  # type: ignore[arg-type]
        assert not out.any()


def test_encoded_images_are_left_to_the_caller(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert not _chunk(open_pool(tmp_path), 0, 1).read_rows(np.zeros((1, 5, 6, 3), np.uint8))


def test_rows_are_read_by_many_threads(tmp_path: Path) -> None:
    images = _images(2000)
    pool = _saved(tmp_path, images, "npy")
    out = np.zeros_like(images)

    def read(chunk: Chunk) -> bool:
        return chunk.read_rows(out[chunk.start : chunk.start + len(chunk)])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, pool.chunks(range(n, n + 7) for n in range(0, 2000, 7))))
    assert np.array_equal(out, images)


def test_a_file_that_shrank_while_it_was_read_stops_the_run(tmp_path: Path) -> None:
    pool = _saved(tmp_path, _images(), "npy")
    chunk = _chunk(pool, 30, 40)
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(PoolError, match="became shorter"):
        chunk.read_rows(np.zeros((16, 5, 6, 3), np.uint8))
    with pytest.raises(PoolError, match="became shorter"):
        chunk.items[0].read()


def test_items_of_a_chunk_are_made_as_they_are_asked_for() -> None:
    pool = ArrayPool(
        np.lib.stride_tricks.as_strided(_images(1), (10**12, 5, 6, 3), (0, 18, 3, 1)), ""
    )
    (chunk,) = pool.chunks([range(10, 10**11)])
    assert len(chunk) == 10**11 - 10
    assert chunk.items[5].id == "15"
    assert [item.id for item in chunk.items[3:5]] == ["13", "14"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells memory by /proc")
@pytest.mark.parametrize("way", ["items", "rows"])
def test_reading_a_large_file_takes_no_memory(tmp_path: Path, way: str) -> None:
    code = f"""
import sys
import numpy as np
from pathlib import Path
from lloss.pools import open_pool

path = {str(tmp_path / "big.npy")!r}
big = np.lib.format.open_memmap(path, "w+", np.uint8, (4000, 100, 100, 3))  # 120 MB, sparse
del big
pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
pool = open_pool(path)
out = np.ones((64, 100, 100, 3), np.uint8)
before = pages()
for chunk in pool.chunks(range(n, n + 64) for n in range(0, 4000, 64)):
    if {way!r} == "rows":
        assert chunk.read_rows(out)
    else:
        for item in chunk.items:
            item.read()
print((pages() - before) * 4096)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10e6


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_single_number_is_refused_by_its_shape(tmp_path: Path, suffix: str) -> None:
    save = np.save if suffix == "npy" else np.savez
    save(tmp_path / f"a.{suffix}", np.uint8(7))
    with pytest.raises(PoolError, match=rf"a\.{suffix}: an array of shape \[\] cannot be resized"):
        open_pool(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("shape", [(16, 20, 3), (16, 20, 1), (16, 20, 4), (3, 16, 20)])
def test_one_image_is_not_taken_for_grey_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(PoolError, match=r"looks like one image; .* so one image is \[1, H, W, 3\]"):
        open_pool(tmp_path / "a.npy")


def test_grey_images_are_a_pool(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 16, 20), np.uint8))
    assert open_pool(tmp_path / "a.npy").count() == 5
