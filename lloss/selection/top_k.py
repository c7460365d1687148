"""The best rows of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Keys: TypeAlias = NDArray[Any]
"""float64 or uint64, [N]."""

_ROOM = 256
"""Rows held beyond twice the limit before the worse ones are dropped."""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, and where in their source they lie.

    Attributes:
        ids: string or large string, [N].
        scores: float64 [N].
        places: number of the piece, of the rows in it, and of the row in those, int64 [N, 3].
    """

    ids: pa.Array
    scores: NDArray[np.float64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[np.int64]) -> Found:
        """Some of these rows, in this order."""
        return Found(self.ids.take(pa.array(rows)), self.scores[rows], self.places[rows])

    @classmethod
    def joined(cls, some: list[Found]) -> Found:
        """All rows of these."""
        ids = pa.chunked_array([one.ids.cast(pa.large_string()) for one in some], pa.large_string())
        scores = np.concatenate([np.empty(0), *(one.scores for one in some)])
        places = np.concatenate([np.empty((0, 3), np.int64), *(one.places for one in some)])
        return cls(ids.combine_chunks(), scores, places)


class Best:
    """The ``limit`` rows with the smallest keys, ties broken by the smaller id.

    Holds O(limit) rows, whatever the number of those added. The order is total, so neither the
    order in which rows come nor the number of threads that bring them changes the result.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bound: Any = None
        """A key above which no row can be among the best any more; None while all can."""
        self._keys: list[Keys] = []
        self._found: list[Found] = []
        self._held = 0
        self._lock = Lock()

    def admits(self, keys: Keys) -> NDArray[np.bool_]:
        """Which rows can still be among the best; the others need no id."""
        if self.bound is None:
            return np.ones(len(keys), np.bool_)
        admitted: NDArray[np.bool_] = keys <= self.bound
        return admitted

    def add(self, keys: Keys, found: Found) -> None:
        """Consider these rows with these keys, none of them NaN."""
        with self._lock:
            self._keys.append(keys)
            self._found.append(found)
            self._held += len(found)
            if self._held > 2 * self.limit + _ROOM:
                self._prune()

    def rows(self) -> Found:
        """The best rows in their order."""
        with self._lock:
            if not self._found:
                return Found.joined([])
            keys, found = self._prune()
            order = pa.table({"key": keys, "id": found.ids})
            by = [("key", "ascending"), ("id", "ascending")]
            return found.take(pc.sort_indices(order, sort_keys=by).to_numpy())

    def _prune(self) -> tuple[Keys, Found]:
        keys, found = np.concatenate(self._keys), Found.joined(self._found)
        if len(keys) > self.limit:
            last = np.partition(keys, self.limit - 1)[self.limit - 1]
            kept = np.flatnonzero(keys < last)
            ties = np.flatnonzero(keys == last)
            kept = np.concatenate([kept, _first(ties, found.ids, self.limit - len(kept))])
            keys, found = keys[kept], found.take(kept)
        if len(keys) == self.limit:
            self.bound = keys.max().item()
        self._keys, self._found, self._held = [keys], [found], len(keys)
        return keys, found


def _first(rows: NDArray[np.int64], ids: pa.Array, count: int) -> NDArray[np.int64]:
    """Those of these rows that have the smallest ids."""
    if len(rows) == count:
        return rows
    table = pa.table({"id": ids.take(pa.array(rows))})
    smallest = pc.select_k_unstable(table, count, sort_keys=[("id", "ascending")])
    first: NDArray[np.int64] = rows[smallest.to_numpy()]
    return first
