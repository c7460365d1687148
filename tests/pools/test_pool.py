"""Find duplicate ids."""

from __future__ import annotations

import random
import tracemalloc

from lloss.pools.pool import first_duplicate


def test_it_finds_what_a_search_finds() -> None:
    draw = random.Random(0)
    for size in (0, 1, 2, 5, 30, 200):
        for _ in range(20):
            ids = [str(draw.randrange(size * 3)) for _ in range(size)]
            found = next((id for at, id in enumerate(ids) if id in ids[:at]), None)
            assert first_duplicate(lambda ids=ids: ids) == found


def test_the_same_hash_is_not_the_same_id() -> None:
    class SameHash(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    assert first_duplicate(lambda: map(SameHash, "abcd")) is None
    assert first_duplicate(lambda: map(SameHash, "abca")) == "a"


def test_distinct_ids_are_read_once_and_cost_eight_bytes_and_a_copy() -> None:
    passes = []

    def ids() -> map[str]:
        passes.append(1)
        return map("folder/{:09d}.jpg".format, range(50_000))

    tracemalloc.start()
    assert first_duplicate(ids) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(passes) == 1
    assert peak < 50_000 * 30
