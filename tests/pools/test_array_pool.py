"""Rows of arrays."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.errors import PoolError
from lloss.pools import ArrayPool, Chunk, Pool, load_array, open_pool
from lloss.pools.array_pool import FileRows

from .pool_files import random_images, write


def _chunk(pool: Pool, start: int, stop: int) -> Chunk:
    (chunk,) = pool.chunks([range(start, stop)])
    return chunk


def _saved(root: Path, images: NDArray[Any], kind: str) -> Pool:
    if kind == "memory":
        return ArrayPool(images, "images")
    path = root / f"a.{kind[:3]}"
    if kind == "npy":
        np.save(path, images)
    elif kind == "npz":
        np.savez_compressed(path, labels=np.arange(3), images=images)
    else:
        np.savez(path, anything=images)
    return open_pool(path)


@pytest.mark.parametrize("kind", ["memory", "npy", "npz", "npz of one array"])
@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 6), (4, 4, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_read_in_bulk_and_one_by_one(
    tmp_path: Path, kind: str, shape: tuple[int, ...], order: Any
) -> None:
    images = np.asarray(random_images(40, *shape), order=order)
    pool = _saved(tmp_path, images, kind)
    assert isinstance(pool.rows, FileRows) == (kind == "npy" and order == "C")  # type: ignore[attr-defined]
    out = np.full((16, *shape), 7, np.uint8)
    assert _chunk(pool, 30, 46).read_rows(out)
    assert np.array_equal(out[:10], images[30:])
    assert (out[10:] == 7).all()
    assert np.array_equal(_chunk(pool, 8, 9).items[0].read(), images[8])


def test_ids_are_row_numbers(tmp_path: Path) -> None:
    images = random_images(4)
    pool = _saved(tmp_path, images, "npy")
    assert [item.id for item in pool] == list(pool.ids()) == ["0", "1", "2", "3"]
    assert np.array_equal(pool.find(["2"])[0].read(), images[2])
    for id in ("x" * 5000, "9" * 5000, "\ud800", "-1", "01", "4", "٣"):
        with pytest.raises(PoolError, match="not in the pool"):
            pool.find([id])


def test_the_fingerprint_is_of_the_rows(tmp_path: Path) -> None:
    one, other = random_images(4), random_images(4, seed=1)
    assert ArrayPool(one, "a").fingerprint() == _saved(tmp_path, one, "npy").fingerprint()
    assert ArrayPool(one, "a").fingerprint() != ArrayPool(other, "a").fingerprint()


def test_load_array_reads_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=random_images(3), labels=np.arange(3))
    assert load_array(tmp_path / "a.npz", "labels").tolist() == [0, 1, 2]
    with pytest.raises(PoolError, match=r"no array 'names' \(it has images, labels\)"):
        load_array(tmp_path / "a.npz", "names")


def test_rows_of_another_shape_are_left_to_the_caller(tmp_path: Path) -> None:
    pool = _saved(tmp_path, random_images(), "npy")
    for out in (
        np.zeros((16, 5, 5, 3), np.uint8),
        np.zeros((16, 5, 6), np.uint8),
        np.zeros((16, 5, 6, 3), np.int8),
        np.zeros((32, 5, 6, 3), np.uint8)[::2],
        np.zeros((16, 3, 5, 6), np.uint8).transpose(0, 2, 3, 1),
    ):
        assert not _chunk(pool, 0, 16).read_rows(out)  # type: ignore[arg-type]
        assert not out.any()
    write(tmp_path / "folder/a.jpg")
    encoded = _chunk(open_pool(tmp_path / "folder"), 0, 1)
    assert not encoded.read_rows(np.zeros((1, 5, 6, 3), np.uint8))


@pytest.mark.parametrize("preadv", [True, False])
def test_rows_are_read_by_many_threads(
    tmp_path: Path, preadv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not preadv:
        monkeypatch.delattr(os, "preadv")  # as on Windows
    images = random_images(2000)
    pool = _saved(tmp_path, images, "npy")
    out = np.zeros_like(images)

    def read(chunk: Chunk) -> bool:
        return chunk.read_rows(out[chunk.start : chunk.start + len(chunk)])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, pool.chunks(range(n, n + 7) for n in range(0, 2000, 7))))
    assert np.array_equal(out, images)


def test_a_file_that_shrank_while_it_was_read_stops_the_run(tmp_path: Path) -> None:
    chunk = _chunk(_saved(tmp_path, random_images(), "npy"), 30, 40)
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(PoolError, match="became shorter"):
        chunk.read_rows(np.zeros((16, 5, 6, 3), np.uint8))
    with pytest.raises(PoolError, match="became shorter"):
        chunk.items[0].read()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 5, 6, 3), np.float32), "an array of float32; images are uint8"),
        *((np.zeros(shape, np.uint8), r"an array of shape .* cannot be resized") for shape in
          [(), (5,), (5, 6), (2, 5, 6, 4), (2, 3, 5, 6), (1, 2, 5, 6, 3)]),
        *((np.zeros(shape, np.uint8), r"looks like one image; .* is \[1, H, W, 3\]") for shape in
          [(16, 20, 3), (16, 20, 1), (16, 20, 4), (3, 16, 20)]),
        (random_images(4)[:0], "no image"),
        (np.array([{}], object), "an array of object|pickle"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("save", [np.save, np.savez])
def test_an_array_of_no_images_is_refused(
    tmp_path: Path, array: Any, reason: str, save: Any
) -> None:
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, array)
    with pytest.raises(PoolError, match=reason):
        open_pool(path)


def test_an_npz_without_the_array_names_those_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=random_images(4), y=np.arange(4))
    with pytest.raises(PoolError, match=r"no array 'images' \(it has x, y\)"):
        open_pool(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_damaged_file_is_one_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, random_images(4))
    truncated, other = path.read_bytes()[:-100], tmp_path / "other"
    with other.open("wb") as file:
        (np.savez if suffix == "npy" else np.save)(file, random_images(4))
    for content in (b"", b"junk, not an array", b"PK\3\4 junk", b"\x93NUMPY", truncated,
                    other.read_bytes()):  # fmt: skip
        with pytest.raises(PoolError, match="not a readable array file"):
            open_pool(write(path, content))
