"""The rows of scores that may be selected, as a stream, and the first of them in some order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.errors import SelectionError, SettingsError
from lloss.scores.score_source import ScoreSource
from lloss.selection.selection import ORDER_OF, SelectionSettings
from lloss.selection.strategies import get_strategy

_SPARE_ROWS = 256
"""Rows beyond twice the limit at which the last are dropped."""

Keys = Callable[[pa.Array, NDArray[np.float64]], NDArray[Any]]
"""A key of each row, from the ids [N] and the scores, the highest best [N]."""


class EligibleRows:
    """The rows with a finite score that the caller did not exclude; can be iterated repeatedly.

    Iterating yields batches with ``id``, ``score`` (float64) and the strategy's further columns of
    numbers, and counts.

    Attributes:
        pool: rows read by the last pass.
        excluded: the ids among them that the caller excluded.
        unscored: of the others, those without a finite score.
        count: rows yielded.
    """

    def __init__(
        self, source: ScoreSource, settings: SelectionSettings, exclude: Collection[str]
    ) -> None:
        self._source, self._settings, self._exclude = source, settings, frozenset(exclude)
        self._strategy = get_strategy(settings.strategy)
        self.excluded: list[str] = []
        self.pool = self.unscored = self.count = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self.excluded, self.pool, self.unscored, self.count = [], 0, 0, 0
        by = [self._settings.by] if self._settings.by else []
        scalars = self._strategy.scalars
        for batch in self._source.scan(list(dict.fromkeys(["id", *by, *scalars]))):
            columns = {"id": _ids(batch["id"])}
            columns["score"] = self._scores(batch) if by else np.full(len(batch), np.nan)
            columns |= {name: _numbers(batch[name], name) for name in scalars}
            usable = self._usable(columns)
            rows = pa.record_batch({name: pa.array(each) for name, each in columns.items()})
            if not usable.all():
                rows = rows.take(pa.array(np.flatnonzero(usable)))
            self.pool, self.count = self.pool + len(batch), self.count + len(rows)
            yield rows

    def _usable(self, columns: dict[str, Any]) -> NDArray[np.bool_]:
        ids = columns["id"]
        usable = np.ones(len(ids), np.bool_)
        for name in ("score", *self._strategy.scalars):
            if name != "score" or self._settings.by:
                usable &= np.isfinite(columns[name])
        if self._exclude:
            texts = ids.to_pylist()
            excluded = np.fromiter(map(self._exclude.__contains__, texts), np.bool_, len(texts))
            self.excluded += [texts[row] for row in np.flatnonzero(excluded).tolist()]
            self.unscored += int(np.count_nonzero(~usable & ~excluded))
            return usable & ~excluded
        self.unscored += int(np.count_nonzero(~usable))
        return usable

    def _scores(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        by = self._settings.by
        scores = _numbers(batch[by], by)
        if not self._settings.direction and self._strategy.uses_scores:
            directions = "; ".join(f"{name} {order} first" for name, order in ORDER_OF.items())
            raise SettingsError(
                f"by {by!r}: which end of it to label first is not known (known: {directions}); "
                'pass --highest or --lowest (order "highest" or "lowest" in Python and JSON)'
            )
        return scores


def first_rows(
    batches: Iterable[pa.RecordBatch], keys: Keys, lowest: bool, limit: int | None
) -> pa.Table:
    """Keep the rows of the smallest keys, and of the smaller id where two are equal.

    Args:
        batches: of :class:`EligibleRows`.
        keys: give each row its key.
        lowest: whether the lowest scores are the best: ``keys`` gets their negatives.
        limit: how many rows at most; None for all.

    Returns:
        The rows, smallest key first, with the further column ``key``; without any row, no column.
    """
    kept: list[pa.Table] = []
    bound: Any = None  # the key above which no row can be among the first
    for batch in batches:
        scores = batch["score"].to_numpy(zero_copy_only=False)
        key = keys(batch["id"], -scores if lowest else scores)
        near = np.flatnonzero(key <= bound) if bound is not None else np.arange(len(key))
        if not len(near):
            continue
        rows = batch if len(near) == len(batch) else batch.take(pa.array(near))
        rows = pa.Table.from_batches([rows]).append_column("key", pa.array(key[near]))
        kept.append(_with_large_ids(rows))
        if limit is not None and sum(map(len, kept)) > 2 * limit + _SPARE_ROWS:
            kept = [_first(kept, limit)]
            bound = kept[0]["key"][-1].as_py()
    return _first(kept, limit) if kept else pa.table({})


def _first(kept: list[pa.Table], limit: int | None) -> pa.Table:
    rows = pa.concat_tables(kept).combine_chunks()
    order = pc.sort_indices(rows, sort_keys=[("key", "ascending"), ("id", "ascending")])
    return rows.take(order[:limit])


def _with_large_ids(rows: pa.Table) -> pa.Table:
    return rows.set_column(0, "id", rows["id"].cast(pa.large_string()))


def _ids(column: pa.Array) -> pa.Array:
    if column.null_count:
        raise SelectionError(f"{column.null_count} rows have no id; score the pool again")
    return column


def _numbers(column: pa.Array, name: str) -> NDArray[np.float64]:
    """Convert a column of numbers to float64 [N], NaN where one is missing."""
    if not pa.types.is_floating(column.type):
        raise SettingsError(f"the column {name!r} holds no floating-point numbers to select by")
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
