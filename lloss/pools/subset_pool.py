"""A pool without some of its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.pools.array_pool import ArrayPool
from lloss.pools.file_walk import PassedOver
from lloss.pools.pool import Chunk, Item, Pool


class SubsetPool(Pool):
    """A pool without some of its ids, such as the labeled ones."""

    def __init__(self, pool: Pool, without: Iterable[str]) -> None:
        self.pool = pool
        self.without = frozenset(without)
        self.uri = pool.uri
        self.unique, self.remote = pool.unique, pool.remote
        self.streamed, self.indexed = pool.streamed, pool.indexed

    def __iter__(self) -> Iterator[Item]:
        return (item for item in self.pool if item.id not in self.without)

    def ids(self) -> Iterator[str]:
        return (id for id in self.pool.ids() if id not in self.without)

    def passed_over(self) -> PassedOver | None:
        return self.pool.passed_over()

    def fingerprint(self) -> str:
        return self.pool.fingerprint()

    def find(self, ids: Iterable[str]) -> list[Item]:
        wanted = list(ids)
        self.refuse_missing(wanted, self.without.intersection(wanted))
        return self.pool.find(wanted)

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        if isinstance(self.pool, ArrayPool):
            return _array_chunks(self.pool, self.without, ranges)
        return super().chunks(ranges)


@dataclass(frozen=True)
class _JoinedChunk(Chunk):
    """Several chunks of the pool below as one."""

    parts: Sequence[Chunk]

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        done = 0
        for part in self.parts:
            if not part.read_rows(out[done:]):
                return False
            done += len(part)
        return True


def _array_chunks(
    pool: ArrayPool, without: Iterable[str], ranges: Iterable[range]
) -> Iterator[Chunk]:
    gone = [int(id) for id in without if pool.holds(id)]
    kept = np.delete(np.arange(pool.count()), gone)
    for wanted in ranges:
        rows = kept[wanted.start : wanted.stop]
        if not len(rows):
            return
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        parts = list(pool.chunks(range(int(run[0]), int(run[-1]) + 1) for run in runs))
        yield _JoinedChunk(wanted.start, [item for part in parts for item in part.items], parts)
