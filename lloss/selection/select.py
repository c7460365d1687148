"""Select K images from a stream of scores.

Only the best rows so far are held. Their order is total, by score and then by id, so that the same
scores, settings and seed give the same selection on any machine.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.errors import SelectionError, SettingsError
from lloss.scores.score_source import ScoreSource
from lloss.selection.diverse import spread, usual_embedding
from lloss.selection.hashing import draw_hashes
from lloss.selection.selection import ORDER_OF, Selection, SelectionSettings

_SPARE_ROWS = 256
"""Rows beyond twice the limit at which the worst are dropped."""


def select(
    source: ScoreSource, settings: SelectionSettings, exclude: Collection[str] = ()
) -> Selection:
    """Choose K images.

    Args:
        source: scores with the columns ``id``, ``settings.by``, and an embedding for ``diverse``.
        settings: how.
        exclude: ids never to select, such as the labeled ones; the source may lack some of them.

    Raises:
        SelectionError: fewer than K are left and ``at_most`` is off.
        ScoresError: the source cannot be read or lacks a column.
        SettingsError: the column holds no numbers, or nothing says which end of it is the best.
    """
    best = _BestRows(settings, exclude)
    for batch in source.scan(["id", settings.by]):
        best.add(batch)
    _check_enough(settings, best)
    rows, unspread, column = best.candidates().slice(0, settings.candidates), 0, ""
    if settings.strategy == "diverse" and len(rows) > settings.k:
        column = settings.embedding or usual_embedding(source)
        rows, unspread = spread(source, rows, settings.k, settings.at_most, column)
    return Selection(
        rows["id"].to_pylist(),
        rows["score"].to_numpy(),
        best.rows,
        best.excluded,
        best.unscored,
        best.eligible,
        settings,
        unspread,
        column,
    )


class _BestRows:
    """The best rows so far, of those that may be selected.

    Each row has a key, the score or a random draw: the smallest keys are the best, and the smaller
    id where two are equal. ``bound`` is the key above which no row can be among the best.
    """

    def __init__(self, settings: SelectionSettings, exclude: Collection[str]) -> None:
        self._settings, self._exclude = settings, frozenset(exclude)
        self._lowest = settings.direction == "lowest"
        self._drawn = settings.strategy == "random" or bool(settings.subset)
        self._limit = int(settings.subset) or settings.candidates
        self._kept: list[pa.Table] = []
        self._bound: float | int = 2**64 - 1 if self._drawn else np.inf
        self.rows = self.excluded = self.unscored = self._usable = 0

    @property
    def eligible(self) -> int:
        """Rows to choose from, after the sub-pool was drawn."""
        return min(self._usable, int(self._settings.subset) or self._usable)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count these rows, and keep those that are among the best so far."""
        ids, scores = _ids(batch["id"]), self._scores(batch[self._settings.by])
        excluded = self._excluded(ids)
        usable = np.isfinite(scores) & ~excluded
        rows = np.flatnonzero(usable)
        self.rows += len(scores)
        self.excluded += int(np.count_nonzero(excluded))
        self.unscored += int(np.count_nonzero(~usable & ~excluded))
        self._usable += len(rows)
        keys: NDArray[Any]
        if self._drawn:
            keys = draw_hashes(ids.take(pa.array(rows)), self._settings.seed)
        else:
            keys = scores[rows] if self._lowest else -scores[rows]
            keys += 0.0  # -0.0 ties with 0.0
        near = keys <= self._bound
        self._keep(keys[near], ids.take(pa.array(rows[near])), scores[rows[near]])

    def candidates(self) -> pa.Table:
        """The best rows, best first: ``key``, ``id`` and ``score``."""
        best = self._prune()
        if not self._drawn or self._settings.strategy == "random":
            return best
        first = "ascending" if self._lowest else "descending"
        return best.sort_by([("score", first), ("id", "ascending")])

    def _keep(self, keys: NDArray[Any], ids: pa.Array, scores: NDArray[np.float64]) -> None:
        if not len(keys):
            return
        ids = ids.cast(pa.large_string())
        self._kept.append(pa.table({"key": keys, "id": ids, "score": scores}))
        if sum(map(len, self._kept)) > 2 * self._limit + _SPARE_ROWS:
            self._prune()

    def _prune(self) -> pa.Table:
        rows = pa.concat_tables(self._kept).combine_chunks()
        order = pc.sort_indices(rows, sort_keys=[("key", "ascending"), ("id", "ascending")])
        rows = rows.take(order[: self._limit])
        if len(rows) == self._limit:
            self._bound = rows["key"][-1].as_py()
        self._kept = [rows]
        return rows

    def _excluded(self, ids: pa.Array) -> NDArray[np.bool_]:
        if not self._exclude:
            return np.zeros(len(ids), np.bool_)
        return np.fromiter(map(self._exclude.__contains__, ids.to_pylist()), np.bool_, len(ids))

    def _scores(self, column: pa.Array) -> NDArray[np.float64]:
        """The scores, NaN where one is missing."""
        by = self._settings.by
        if not pa.types.is_floating(column.type):
            raise SettingsError(f"the column {by!r} holds no floating-point numbers to select by")
        if not (self._settings.direction or self._settings.strategy == "random"):
            directions = "; ".join(f"{name} {order} first" for name, order in ORDER_OF.items())
            raise SettingsError(
                f"by {by!r}: which end of it to label first is not known (known: {directions}); "
                'pass --highest or --lowest (order "highest" or "lowest" in Python and JSON)'
            )
        values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return values


def _ids(column: pa.Array) -> pa.Array:
    if column.null_count:
        raise SelectionError(f"{column.null_count} rows have no id; score the pool again")
    return column


def _check_enough(settings: SelectionSettings, best: _BestRows) -> None:
    if best.eligible >= settings.k or (settings.at_most and best.eligible):
        return
    counts = {
        "are excluded": best.excluded,
        "have no finite score": best.unscored,
    }
    why = [f"{count} {what}" for what, count in counts.items() if count]
    if settings.subset:
        why.append(f"the sub-pool is {settings.subset}")
    reason = f" ({best.rows} scored; {', '.join(why)})" if why else ""
    remedy = (
        "lower k, or pass --at-most to take what is left" if best.eligible else "score more images"
    )
    raise SelectionError(f"k = {settings.k}, but {best.eligible} images are left{reason}; {remedy}")
