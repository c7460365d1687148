"""The best rows of a stream."""

from __future__ import annotations

from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Keys: TypeAlias = NDArray[Any]
"""float64 or uint64, [N]."""

_ROOM = 4096
"""Rows held beyond twice the limit before the worse ones are dropped."""

COLUMNS = pa.schema(
    [
        ("id", pa.large_string()),
        ("score", pa.float64()),
        ("piece", pa.int64()),
        ("place", pa.int64()),
        ("row", pa.int64()),
    ]
)
"""What is known of a row: its id and score, and where in its source it lies."""


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
        self._rows: list[pa.Table] = []
        self._held = 0
        self._lock = Lock()

    def admits(self, keys: Keys) -> NDArray[np.bool_]:
        """Which rows can still be among the best; the others need no id."""
        if self.bound is None:
            return np.ones(len(keys), np.bool_)
        admitted: NDArray[np.bool_] = keys <= self.bound
        return admitted

    def add(self, keys: Keys, rows: pa.Table) -> None:
        """Consider these rows (of the schema :data:`COLUMNS`) with these keys; none is NaN."""
        with self._lock:
            self._keys.append(keys)
            self._rows.append(rows)
            self._held += len(rows)
            if self._held > 2 * self.limit + _ROOM:
                self._prune()

    def table(self) -> pa.Table:
        """The best rows in their order."""
        with self._lock:
            if not self._rows:
                return COLUMNS.empty_table()
            self._prune()
            keyed = self._rows[0].append_column("key", pa.array(self._keys[0]))
            ordered = keyed.sort_by([("key", "ascending"), ("id", "ascending")])
            return ordered.drop_columns(["key"])

    def _prune(self) -> None:
        keys, rows = np.concatenate(self._keys), pa.concat_tables(self._rows)
        if len(keys) > self.limit:
            last = np.partition(keys, self.limit - 1)[self.limit - 1]
            kept = np.flatnonzero(keys < last)
            ties = np.flatnonzero(keys == last)
            wanted = self.limit - len(kept)
            if len(ties) > wanted:
                ids = pa.table({"id": rows["id"].take(pa.array(ties))})
                smallest = pc.select_k_unstable(ids, wanted, sort_keys=[("id", "ascending")])
                ties = ties[smallest.to_numpy()]
            kept = np.concatenate([kept, ties])
            keys, rows = keys[kept], rows.take(pa.array(kept))
        if len(keys) == self.limit:
            self.bound = keys.max().item()
        self._keys, self._rows, self._held = [keys], [rows.combine_chunks()], len(keys)
