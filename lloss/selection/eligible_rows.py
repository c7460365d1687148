"""The rows of scores that may be selected, as a stream."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.errors import SelectionError, SettingsError
from lloss.scores.score_source import ScoreSource
from lloss.selection.selection import NO_GROUP, ORDER_OF, PREDICTION, SelectionSettings
from lloss.selection.strategies import get_strategy
from lloss.text.counts import counted

GROUP = "group"
"""The column of the group that a row counts for, where picks are balanced."""

CLASS = "class"
"""The column of the class predicted, where rare ones weigh more."""


class EligibleRows:
    """The rows with a finite score that the caller did not exclude; can be iterated repeatedly.

    Iterating yields batches with ``id``, ``score`` (float64) and the strategy's further columns of
    numbers, :data:`GROUP` where ``settings.balance`` names a column, :data:`CLASS` (float64) where
    ``settings.class_weight`` asks for it, and counts.

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
        balance = [self._settings.group_column] if self._settings.balance else []
        predicted = [PREDICTION] if self._settings.class_weight else []
        scalars = self._strategy.scalars
        names = ["id", *by, *scalars, *balance, *predicted]
        for batch in self._source.scan(list(dict.fromkeys(names))):
            columns = {"id": _ids(batch["id"])}
            columns["score"] = self._scores(batch) if by else np.full(len(batch), np.nan)
            columns |= {name: _numbers(batch[name], name) for name in scalars}
            for name in balance:
                columns[GROUP] = _groups(batch[name], name)
            for name in predicted:
                columns[CLASS] = _classes(batch[name], name)
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


def _ids(column: pa.Array) -> pa.Array:
    if column.null_count:
        raise SelectionError(
            f"{counted(column.null_count, 'row has', 'rows have')} no id; score the pool again, or "
            "give each row one"
        )
    return column


def _numbers(column: pa.Array, name: str) -> NDArray[np.float64]:
    """Convert a column of numbers to float64 [N], NaN where one is missing."""
    if not pa.types.is_floating(column.type):
        raise SettingsError(f"the column {name!r} holds no floating-point numbers to select by")
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _classes(column: pa.Array, name: str) -> NDArray[np.float64]:
    """Convert a column of class numbers to float64 [N], NaN where one is missing."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise SettingsError(f"class_weight: the column {name!r} holds {column.type}, not classes")
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _groups(column: pa.Array, name: str) -> pa.Array:
    """Convert a column of classes, names, whole numbers or dates to text."""
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        if (broken := values[~(missing | np.isfinite(values) & (values == np.rint(values)))]).size:
            raise SettingsError(
                f"balance {name!r}: holds {broken[0]:g}; groups are names or whole numbers"
            )
        column = pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)
    try:
        names = column.cast(pa.string())
    except pa.ArrowException as error:
        raise SettingsError(f"balance {name!r}: holds {column.type}, not groups") from error
    # What is called as those without a value are gets quotes, to be a group of its own.
    names = pc.replace_substring_regex(names, rf"^('*{re.escape(NO_GROUP)}'*)$", r"'\1'")
    named: pa.Array = pc.if_else(pc.equal(names, ""), None, names)
    return named.fill_null(NO_GROUP)
