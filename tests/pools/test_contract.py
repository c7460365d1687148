"""What every kind of pool promises: the same ids by each way, and chunks at any positions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lloss.errors import PoolError
from lloss.pools import ArrayPool, Pool, SubsetPool, open_pool

from .pool_files import COUNT, KINDS, contents


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__)
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Pool:
    make: Callable[[Path], str] = request.param
    found = open_pool(tmp_path / make(tmp_path))
    assert (found.unique, found.streamed, found.indexed) == KINDS[make]
    assert (found.counted, found.remote) == (not found.streamed, False)
    return found


def test_ids_count_and_found_items_are_those_of_the_listing(pool: Pool) -> None:
    items = list(pool)
    ids = [item.id for item in items]
    assert list(pool.ids()) == ids
    assert pool.count() == len(ids) == len(set(ids)) == COUNT
    wanted = [items[n] for n in (17, 2, 22, 0)]
    found = pool.find([item.id for item in wanted])
    assert [item.id for item in found] == [item.id for item in wanted]
    assert contents(found) == contents(wanted)
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
    assert [contents(chunk.items) for chunk in chunks] == [contents(part) for part in wanted]


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
    assert [contents(chunk.items) for chunk in chunks] == [contents(part) for part in wanted]
    if isinstance(pool, ArrayPool):
        for chunk, part in zip(chunks, wanted):
            out = np.zeros((len(part) + 1, 5, 6, 3), np.uint8)
            assert chunk.read_rows(out)
            assert np.array_equal(out[:-1], [item.read() for item in part])
            assert not chunk.read_rows(out[:, :4])
