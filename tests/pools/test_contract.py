"""What every kind of pool promises: the same ids by each way, and chunks at any positions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.errors import PoolError
from lloss.pools import ArrayPool, Pool, SubsetPool, open_pool

from .pool_files import random_images, write, write_table, write_tar

COUNT = 23
CONTENT = [f"image {number}".encode() for number in range(COUNT)]
ROWS = {"id": [f"row {n}" for n in range(COUNT)], "jpg": CONTENT}


def _folder(root: Path) -> str:
    for number, content in enumerate(CONTENT):
        write(root / "folder" / f"{number % 3}" / f"{number:02d}.jpg", content)
    return "folder"


def _list(root: Path) -> str:
    _folder(root)
    lines = [f"folder/{number % 3}/{number:02d}.jpg\n" for number in range(COUNT)]
    (root / "list.txt").write_text("".join(lines))
    return "list.txt"


def _npy(root: Path) -> str:
    np.save(root / "a.npy", random_images(COUNT))
    return "a.npy"


def _stored(root: Path) -> str:
    np.savez(root / "a.npz", images=random_images(COUNT))
    return "a.npz"


def _compressed(root: Path) -> str:
    np.savez_compressed(root / "a.npz", images=random_images(COUNT))
    return "a.npz"


def _tar(root: Path, suffix: str = "tar") -> str:
    for shard in range(3):
        members: dict[str, bytes] = {}
        for number in range(COUNT * shard // 3, COUNT * (shard + 1) // 3):
            members |= {f"{number:02d}.jpg": CONTENT[number], f"{number:02d}.cls": b"0"}
        write_tar(root / f"s-{shard}.{suffix}", members)
    return f"s-{{0..2}}.{suffix}"


def _gz(root: Path) -> str:
    return _tar(root, "tar.gz")


def _parquet(root: Path) -> str:
    (root / "p").mkdir()
    for name, part in (("0", slice(0, 9)), ("1", slice(9, COUNT))):
        columns = {key: values[part] for key, values in ROWS.items()}
        write_table(root / "p" / f"{name}.parquet", columns, block=4)
    return "p"


def _feather(root: Path) -> str:
    return write_table(root / "a.feather", ROWS).name


def _stream(root: Path) -> str:
    return write_table(root / "a.arrow", ROWS).name


def _numbered(root: Path) -> str:
    return write_table(root / "n.parquet", {"jpg": CONTENT}, block=4).name


def _persons(root: Path) -> str:
    for image, pixels in enumerate(random_images(8, 20, 30, 3)):
        Image.fromarray(pixels).save(root / f"{image}.png")
    people = [{"image": f"{n % 8}.png", "center": [n + 1, 10], "scale": 0.05} for n in range(COUNT)]
    (root / "people.json").write_text(json.dumps(people))
    return "people.json"


KINDS = {
    # maker: unique, streamed, indexed
    _folder: (True, False, True),
    _list: (True, False, False),
    _npy: (True, False, True),
    _stored: (True, False, True),
    _compressed: (True, False, True),
    _tar: (False, False, False),
    _gz: (False, True, False),
    _parquet: (False, False, False),
    _feather: (False, False, False),
    _stream: (False, False, False),
    _numbered: (True, False, False),
    _persons: (True, False, False),
}


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__[1:])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Pool:
    make: Callable[[Path], str] = request.param
    found = open_pool(tmp_path / make(tmp_path))
    assert (found.unique, found.streamed, found.indexed) == KINDS[make]
    assert (found.counted, found.remote) == (not found.streamed, False)
    return found


def _contents(items: Any) -> list[bytes]:
    read = (item.read() for item in items)
    return [raw if isinstance(raw, bytes) else raw.tobytes() for raw in read]


def test_ids_count_and_found_items_are_those_of_the_listing(pool: Pool) -> None:
    items = list(pool)
    ids = [item.id for item in items]
    assert list(pool.ids()) == ids
    assert pool.count() == len(ids) == len(set(ids)) == COUNT
    wanted = [items[n] for n in (17, 2, 22, 0)]
    found = pool.find([item.id for item in wanted])
    assert [item.id for item in found] == [item.id for item in wanted]
    assert _contents(found) == _contents(wanted)
    with pytest.raises(PoolError, match="'no such'.*ids look like"):
        pool.find(["no such"])


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
    assert [_contents(chunk.items) for chunk in chunks] == [_contents(part) for part in wanted]


def test_chunks_of_endless_ranges_end_with_the_pool(pool: Pool) -> None:
    ranges = (range(n, n + 4) for n in itertools.count(0, 8))  # every other four
    assert [chunk.start for chunk in pool.chunks(ranges)] == [0, 8, 16]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95, 1.0])
def test_a_subset_is_a_pool_without_some_ids(pool: Pool, share: float) -> None:
    random = np.random.default_rng(int(share * 100))
    left_out = [id for id in pool.ids() if random.random() < share]
    subset = SubsetPool(pool, [*left_out, "unknown", "99999", "007"])
    items = list(subset)
    ids = [item.id for item in items]
    assert list(subset.ids()) == ids == [id for id in pool.ids() if id not in left_out]
    for name in ("unique", "remote", "streamed", "counted", "indexed", "uri"):
        assert getattr(subset, name) == getattr(pool, name)
    assert [item.id for item in subset.find(ids[1:3])] == ids[1:3]
    for id in left_out[:1]:
        with pytest.raises(PoolError, match="is not in the pool"):
            subset.find([id])
    ranges = [range(3), range(3, 4), range(6, 15), range(15, 40), range(40, 50)]
    chunks = list(subset.chunks(ranges))
    wanted = [items[r.start : r.stop] for r in ranges if r.start < len(items)]
    assert [chunk.ids for chunk in chunks] == [[item.id for item in part] for part in wanted]
    assert [_contents(chunk.items) for chunk in chunks] == [_contents(part) for part in wanted]
    if isinstance(pool, ArrayPool):
        for chunk, part in zip(chunks, wanted):
            out = np.zeros((len(part) + 1, 5, 6, 3), np.uint8)
            assert chunk.read_rows(out)
            assert np.array_equal(out[:-1], [item.read() for item in part])
            assert not chunk.read_rows(out[:, :4])
