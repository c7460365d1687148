"""What every kind of pool promises: the same ids by each way, and chunks at any positions."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lloss.errors import PoolError
from lloss.pools import ArrayPool, Pool, SubsetPool, open_pool

COUNT = 23


def _bytes(number: int) -> bytes:
    return f"image {number}".encode()


def _folder(root: Path) -> str:
    for number in range(COUNT):
        path = root / "folder" / f"{number % 3}" / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_bytes(number))
    return str(root / "folder")


def _list(root: Path) -> str:
    _folder(root)
    lines = [f"folder/{number % 3}/{number:02d}.jpg\n" for number in range(COUNT)]
    (root / "list.txt").write_text("".join(lines))
    return str(root / "list.txt")


def _npy(root: Path) -> str:
    random = np.random.default_rng(0)
    np.save(root / "a.npy", random.integers(0, 256, (COUNT, 5, 6, 3), dtype=np.uint8))
    return str(root / "a.npy")


def _npz(root: Path) -> str:
    np.savez(root / "a.npz", images=np.load(_npy(root)))
    return str(root / "a.npz")


def _deflated(root: Path) -> str:
    np.savez_compressed(root / "b.npz", images=np.load(_npy(root)))
    return str(root / "b.npz")


def _shards(root: Path, suffix: str = "tar") -> str:
    for shard in range(3):
        mode: Any = "w:gz" if suffix != "tar" else "w"
        with tarfile.open(root / f"s-{shard}.{suffix}", mode) as tar:
            for number in range(COUNT * shard // 3, COUNT * (shard + 1) // 3):
                for extension, content in (("jpg", _bytes(number)), ("cls", b"0")):
                    info = tarfile.TarInfo(f"{number:02d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return str(root / f"s-{{0..2}}.{suffix}")


def _gz(root: Path) -> str:
    return _shards(root, "tar.gz")


def _table(start: int, stop: int) -> pa.Table:
    rows = range(start, stop)
    return pa.table({"id": [f"row {n}" for n in rows], "jpg": [_bytes(n) for n in rows]})


def _parquet(root: Path) -> str:
    (root / "p").mkdir()
    pq.write_table(_table(0, 9), root / "p" / "0.parquet", row_group_size=4)
    pq.write_table(_table(9, COUNT), root / "p" / "1.parquet", row_group_size=3)
    return str(root / "p")


def _feather(root: Path) -> str:
    with pa.ipc.new_file(root / "a.feather", _table(0, 1).schema) as file:
        file.write_table(_table(0, COUNT), max_chunksize=5)
    return str(root / "a.feather")


def _stream(root: Path) -> str:
    with pa.ipc.new_stream(root / "a.arrow", _table(0, 1).schema) as file:
        file.write_table(_table(0, COUNT), max_chunksize=5)
    return str(root / "a.arrow")


def _numbered(root: Path) -> str:
    pq.write_table(_table(0, COUNT).select(["jpg"]), root / "n.parquet", row_group_size=4)
    return str(root / "n.parquet")


def _persons(root: Path) -> str:
    random = np.random.default_rng(0)
    for image in range(8):
        pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{image}.png")
    people = [{"image": f"{n % 8}.png", "center": [n + 1, 10], "scale": 0.05} for n in range(COUNT)]
    (root / "people.json").write_text(json.dumps(people))
    return str(root / "people.json")


KINDS = [
    _folder, _list, _npy, _npz, _deflated, _shards, _gz, _parquet, _feather, _stream, _numbered,
    _persons,
]  # fmt: skip


@pytest.fixture(params=KINDS, ids=[kind.__name__[1:] for kind in KINDS])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Pool:
    make: Callable[[Path], str] = request.param
    return open_pool(make(tmp_path))


def _contents(items: Any) -> list[bytes]:
    return [bytes(np.asarray(bytearray(r)) if isinstance(r, bytes) else r) for r in
            (item.read() for item in items)]  # fmt: skip


def test_ids_and_count_are_those_of_the_items(pool: Pool) -> None:
    ids = [item.id for item in pool]
    assert list(pool.ids()) == ids
    assert pool.count() == len(ids) == len(set(ids)) == COUNT


@pytest.mark.parametrize(
    "ranges",
    [
        [range(5), range(5, 10), range(10, 15), range(15, 20), range(20, 25)],
        [range(1, 3), range(7, 8), range(8, 12), range(21, 40)],
        [range(13, 14)],
        [range(22, 23), range(23, 30)],
        [range(23, 24)],
    ],
    ids=str,
)
def test_chunks_are_the_items_at_their_positions(pool: Pool, ranges: list[range]) -> None:
    items = list(pool)
    chunks = list(pool.chunks(ranges))
    wanted = [items[r.start : r.stop] for r in ranges if r.start < COUNT]
    assert [chunk.start for chunk in chunks] == [r.start for r in ranges if r.start < COUNT]
    assert [chunk.ids for chunk in chunks] == [[item.id for item in part] for part in wanted]
    assert [len(chunk) for chunk in chunks] == [len(part) for part in wanted]
    assert [_contents(chunk.items) for chunk in chunks] == [_contents(part) for part in wanted]


def test_chunks_of_endless_ranges_end_with_the_pool(pool: Pool) -> None:
    ranges = (range(n, n + 4) for n in itertools.count(0, 8))  # every other four
    starts = [chunk.start for chunk in pool.chunks(ranges)]
    assert starts == [0, 8, 16]


def test_found_items_read_what_listed_ones_do(pool: Pool) -> None:
    items = list(pool)
    wanted = [items[n] for n in (17, 2, 22, 0)]
    found = pool.find([item.id for item in wanted])
    assert [item.id for item in found] == [item.id for item in wanted]
    assert _contents(found) == _contents(wanted)
    with pytest.raises(PoolError, match="'no such'.*ids look like"):
        pool.find(["no such"])


def test_the_rest_keeps_the_promises(pool: Pool) -> None:
    left_out = list(pool.ids())[::2]
    rest = SubsetPool(pool, left_out)
    ids = list(pool.ids())[1::2]
    assert list(rest.ids()) == ids
    assert [chunk.ids for chunk in rest.chunks([range(2, 5)])] == [ids[2:5]]
    assert rest.find(ids[3:4])[0].id == ids[3]
    for name in ("unique", "remote", "streamed", "counted"):
        assert getattr(rest, name) == getattr(pool, name)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95, 1.0])
def test_chunks_of_the_rest_are_its_items(pool: Pool, share: float) -> None:
    random = np.random.default_rng(int(share * 100))
    left_out = [id for id in pool.ids() if random.random() < share]
    rest = SubsetPool(pool, [*left_out, "unknown", "99999", "007"])
    items = list(rest)
    ranges = [range(3), range(3, 4), range(6, 15), range(15, 40), range(40, 50)]
    chunks = list(rest.chunks(ranges))
    wanted = [items[r.start : r.stop] for r in ranges if r.start < len(items)]
    assert [chunk.ids for chunk in chunks] == [[item.id for item in part] for part in wanted]
    assert [_contents(chunk.items) for chunk in chunks] == [_contents(part) for part in wanted]
    if isinstance(pool, ArrayPool):
        for chunk, part in zip(chunks, wanted):
            out = np.zeros((len(part) + 1, 5, 6, 3), np.uint8)
            assert chunk.read_rows(out)
            assert np.array_equal(out[:-1], [item.read() for item in part])
            assert not chunk.read_rows(out[:, :4])


@pytest.mark.parametrize(
    ("make", "unique", "streamed"),
    [
        (_folder, True, False),
        (_list, True, False),
        (_npy, True, False),
        (_shards, False, False),
        (_gz, False, True),
        (_parquet, False, False),
        (_numbered, True, False),
        (_persons, True, False),
    ],
)
def test_what_a_scorer_must_know(
    make: Callable[[Path], str], unique: bool, streamed: bool, tmp_path: Path
) -> None:
    pool = open_pool(make(tmp_path))
    assert (pool.unique, pool.streamed, pool.remote) == (unique, streamed, False)
    assert pool.counted == (not streamed)
