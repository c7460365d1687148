"""An id that comes twice is found, and no other."""

from __future__ import annotations

import random
import subprocess
import sys

from lloss.pools.unique_ids import first_duplicate


def slowly(ids: list[str]) -> tuple[str, int, int] | None:
    for position, id in enumerate(ids):
        if id in ids[:position]:
            return id, ids.index(id), position
    return None


def test_it_finds_what_a_search_finds() -> None:
    draw = random.Random(0)
    for size in (1, 2, 5, 30, 200):
        for _ in range(20):
            ids = [str(draw.randrange(size * 3)) for _ in range(size)]
            assert first_duplicate(lambda ids=ids: iter(ids)) == slowly(ids)


def test_none_among_none_and_among_others() -> None:
    assert first_duplicate(lambda: iter([])) is None
    assert first_duplicate(lambda: map(str, range(100_000))) is None
    twice = [*map(str, range(100_000)), "70000"]
    assert first_duplicate(lambda: iter(twice)) == ("70000", 70_000, 100_000)


def test_the_same_hash_is_not_the_same_id() -> None:
    class Alike(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    assert first_duplicate(lambda: map(Alike, "abcd")) is None
    assert first_duplicate(lambda: map(Alike, "abca")) == ("a", 0, 3)


def test_it_is_gone_through_once_where_all_differ() -> None:
    passes = []

    def ids() -> list[str]:
        passes.append(1)
        return ["a", "b"]

    assert first_duplicate(lambda: iter(ids())) is None
    assert len(passes) == 1


def test_ids_cost_eight_bytes_and_their_sorted_copy() -> None:
    code = (
        "import tracemalloc; from lloss.pools.unique_ids import first_duplicate\n"
        "tracemalloc.start()\n"
        "first_duplicate(lambda: (f'folder/{n:09d}.jpg' for n in range(200_000)))\n"
        "print(tracemalloc.get_traced_memory()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200_000 * 30
