"""A pool without some of its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

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
        if not isinstance(self.pool, ArrayPool):
            return super().chunks(ranges)
        gone = [int(id) for id in self.without if self.pool.holds(id)]
        return self.pool.chunks_of(np.delete(np.arange(self.pool.count()), gone), ranges)
