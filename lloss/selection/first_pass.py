"""The first pass over scores: it keeps the rows that a strategy chooses from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.selection.eligible_rows import CLASS, GROUP, EligibleRows
from lloss.selection.hashing import draw_hashes
from lloss.selection.selection import SelectionSettings
from lloss.selection.strategies import get_strategy
from lloss.selection.weights import SAMPLE, ClassWeights, ScoreWeights

_SPARE_ROWS = 256
"""Rows beyond twice the limit at which the last are dropped."""

GROUPED_MOST = 100_000
"""Rows kept for all groups together, if each gets at least four times its share."""


class FirstPass:
    """Keeps the rows of the smallest keys, of each group; can be repeated with other numbers.

    Without groups all rows are in one, named "".

    Attributes:
        sizes: rows of each group that the last pass went over, in the order of their names.
    """

    def __init__(self, rows: EligibleRows, settings: SelectionSettings) -> None:
        self._settings, self._strategy = settings, get_strategy(settings.strategy)
        self._lowest = settings.direction == "lowest"
        self._batches: Iterable[pa.RecordBatch] = rows
        self._score_weights: ScoreWeights | None = None
        self._class_weights: ClassWeights | None = None
        self.sizes: dict[str, int] = {}
        if settings.subset:
            self._batches = self._drawn(int(settings.subset)).to_batches()
        if self._strategy.weighted and (self._strategy.uses_scores or settings.class_weight):
            self._set_weights(self._drawn(SAMPLE))

    def count(self) -> dict[str, int]:
        """Count the rows of each group."""
        counts = Counter[str]()
        for batch in self._batches:
            counts.update({group: len(rows) for group, rows in _parts(batch)})
        return dict(sorted(counts.items()))

    def keep(self, asks: Mapping[str, int]) -> dict[str, pa.Table]:
        """Keep the rows that so many picks of each group are chosen from.

        Returns:
            For each group, its rows, smallest key first, with the further columns ``key`` and,
            for a weighted strategy, ``weight``; a group without any row is left out.
        """
        kept = {group: _FirstRows(self._limit(ask, len(asks))) for group, ask in asks.items()}
        sizes = Counter[str]()
        for batch in self._batches:
            keys = self._strategy.keys(batch["id"], self._weighed(batch), self._settings.seed)
            for group, rows in _parts(batch):
                sizes[group] += len(rows)
                if group in kept:
                    kept[group].add(batch, keys, rows)
        self.sizes = dict(sorted(sizes.items()))
        tables = {group: self._finished(first.table()) for group, first in kept.items()}
        return {group: table for group, table in tables.items() if len(table)}

    def _limit(self, ask: int, groups: int) -> int | None:
        limit = self._strategy.limit(ask)
        if limit is None or groups == 1:
            return limit
        return min(limit, max(4 * ask, GROUPED_MOST // groups))

    def _drawn(self, count: int) -> pa.Table:
        """Some rows, at random."""
        drawn = _FirstRows(count)
        for batch in self._batches:
            drawn.add(batch, draw_hashes(batch["id"], self._settings.seed), np.arange(len(batch)))
        found = drawn.table()
        return found.drop_columns(["key"]) if len(found) else found

    def _oriented(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return -scores if self._lowest else scores

    def _set_weights(self, sample: pa.Table) -> None:
        if self._strategy.uses_scores:
            scores = sample["score"].to_numpy() if len(sample) else np.zeros(1)
            self._score_weights = ScoreWeights(self._oriented(scores))
        if self._settings.class_weight:
            classes = sample[CLASS].to_numpy() if len(sample) else np.zeros(1)
            self._class_weights = ClassWeights(classes)

    def _weighed(self, rows: pa.RecordBatch | pa.Table) -> NDArray[np.float64]:
        """The weights of rows, or their scores, the highest first, where nothing is weighed."""
        scores = self._oriented(rows["score"].to_numpy())
        if not self._strategy.weighted:
            return scores
        weights = self._score_weights(scores) if self._score_weights else np.ones(len(scores))
        if self._class_weights:
            weights *= self._class_weights(rows[CLASS].to_numpy())
        return weights

    def _finished(self, rows: pa.Table) -> pa.Table:
        if not (self._strategy.weighted and len(rows)):
            return rows
        return rows.append_column("weight", pa.array(self._weighed(rows)))


class _FirstRows:
    """The rows of the smallest keys so far, and of the smaller id where two are equal."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._kept: list[pa.Table] = []
        self._bound: Any = None  # the key above which no row can be among the first

    def add(self, batch: pa.RecordBatch, keys: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Go over some rows of a batch, in their order; ``keys`` has one for each row of it."""
        if self._bound is not None:
            near = keys <= self._bound
            rows = np.flatnonzero(near) if len(rows) == len(near) else rows[near[rows]]
        if not len(rows) or self._limit == 0:
            return
        some = batch if len(rows) == len(batch) else batch.take(pa.array(rows))
        table = pa.Table.from_batches([some]).append_column("key", pa.array(keys[rows]))
        place = table.schema.names.index("id")
        ids = table["id"].cast(pa.large_string())
        self._kept.append(table.set_column(place, "id", ids))
        if self._limit is not None and sum(map(len, self._kept)) > 2 * self._limit + _SPARE_ROWS:
            self._kept = [self.table()]
            self._bound = self._kept[0]["key"][-1].as_py()

    def table(self) -> pa.Table:
        """The rows, smallest key first, with the column ``key``; without any row, no column."""
        if not self._kept:
            return pa.table({})
        rows = pa.concat_tables(self._kept).combine_chunks()
        order = pc.sort_indices(rows, sort_keys=[("key", "ascending"), ("id", "ascending")])
        return rows.take(order[: self._limit])


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Divide the rows of a batch by their groups."""
    if GROUP not in batch.schema.names:
        yield "", np.arange(len(batch))
        return
    encoded = batch[GROUP].dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(encoded.dictionary)))
    yield from zip(encoded.dictionary.to_pylist(), np.split(order, ends[:-1]))
