"""Which K images to label next.

Scores stream through, piece by piece; only the best rows so far are held. The order is total,
(-score, id), so that the same scores, settings and seed give the same selection on any machine.
Ids are read where they decide something: a row that cannot be selected needs none.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.errors import SelectionError, SettingsError
from lloss.selection.best import Best, Found
from lloss.selection.diversity import embeddings_of, k_center
from lloss.selection.exclusion import ExcludedIds
from lloss.selection.sampling import draw_hashes
from lloss.sources import BatchRows, Rows, ScannedSource, ScoreSource, visit

STRATEGIES = ("top", "diverse", "random")

CANDIDATES = 4
"""``diverse`` spreads its K picks over the best 4K."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How to select.

    Attributes:
        k: how many.
        strategy: ``top`` takes the K highest scores; ``diverse`` spreads K picks over the 4K
            highest by k-center greedy on the embeddings (Sener & Savarese 2018), the first pick
            being the highest score; ``random`` ignores the scores.
        by: the column that is the score.
        subset: choose from a random sub-pool alone: a number of images (the paper's habit), or a
            share below 1; 0 for all.
        seed: of the sub-pool and of ``random``; an image is drawn by a hash of its id and this.
        at_most: take what there is when fewer than K are left.
    """

    k: int
    strategy: str = "top"
    by: str = "loss"
    subset: float = 0
    seed: int = 0
    at_most: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingsError(f"k = {self.k}: select at least 1 image")
        if self.strategy not in STRATEGIES:
            choices = ", ".join(STRATEGIES)
            raise SettingsError(f"strategy {self.strategy!r}: choose one of {choices}")
        if self.by == "id":
            raise SettingsError(f"by {self.by!r}: select by a column of numbers, such as loss")
        whole = self.subset < 1 or float(self.subset).is_integer()
        if not (0 <= self.subset < math.inf and whole):
            raise SettingsError(
                f"subset {self.subset}: give a number of images, or a share between 0 and 1"
            )


@dataclass(frozen=True)
class Selection:
    """The images to label next, and what became of the others.

    Attributes:
        ids: in the order of their rank.
        scores: of each, float64 [K].
        pool: rows that were read.
        excluded: rows left out because the caller named them.
        nan: rows without a score; never selected.
        eligible: rows the choice was made from, after the sub-pool was drawn.
        settings: that it was made with.
    """

    ids: list[str]
    scores: NDArray[np.float64]
    pool: int
    excluded: int
    nan: int
    eligible: int
    settings: SelectionSettings

    def __len__(self) -> int:
        return len(self.ids)

    def table(self) -> pa.Table:
        """Columns ``id``, ``score`` and ``rank`` (from 1)."""
        rank = pa.array(range(1, len(self.ids) + 1), pa.int64())
        return pa.table({"id": pa.array(self.ids, pa.string()), "score": self.scores, "rank": rank})


def select(
    source: ScoreSource,
    settings: SelectionSettings,
    exclude: Collection[str] | ExcludedIds = (),
) -> Selection:
    """Choose K images.

    Args:
        source: scores with the columns ``id``, ``settings.by``, and ``embedding`` for ``diverse``.
        settings: how.
        exclude: ids never to select, such as the labeled ones; they may be unknown to the source.
            :class:`ExcludedIds` of the same seed say afterwards how many were.

    Raises:
        SelectionError: fewer than K are left and ``at_most`` is off.
        ScoresError: the source cannot be read or lacks a column.
    """
    draw = _Draw(settings, exclude)
    if isinstance(source, ScannedSource) and not (draw.needs_ids or settings.strategy == "diverse"):
        for batch in source.scan(["id", settings.by]):
            draw.scan(batch)
    else:
        visit(source, draw.consider)
    rows = draw.best.rows()
    if settings.subset >= 1 and settings.strategy != "random":
        rows = _by_score(rows)
    rows = rows.take(np.arange(min(len(rows), _wanted(settings))))
    _check_enough(settings, draw)
    if settings.strategy == "diverse" and len(rows) > settings.k:
        rows = rows.take(k_center(embeddings_of(source, rows.places), settings.k))
    return Selection(
        rows.ids.to_pylist(),
        rows.scores,
        draw.rows,
        draw.excluded,
        draw.nan,
        draw.eligible,
        settings,
    )


def _by_score(rows: Found) -> Found:
    table = pa.table({"score": rows.scores, "id": rows.ids})
    order = pc.sort_indices(table, sort_keys=[("score", "descending"), ("id", "ascending")])
    return rows.take(order.to_numpy())


def _wanted(settings: SelectionSettings) -> int:
    return settings.k * (CANDIDATES if settings.strategy == "diverse" else 1)


class _Draw:
    """Finds the best of the rows that may be selected at all; counts the others."""

    def __init__(self, settings: SelectionSettings, exclude: Collection[str] | ExcludedIds) -> None:
        self.by = settings.by
        self.seed = settings.seed
        self.rows = self.excluded = self.nan = self._seen = 0
        if not isinstance(exclude, ExcludedIds):
            exclude = ExcludedIds(exclude, settings.seed)
        self._excluded_ids = exclude
        self._subset = settings.subset
        share = 0 < settings.subset < 1
        self._share = np.uint64(int(settings.subset * 2**64)) if share else None
        self._by_hash = settings.strategy == "random" or settings.subset >= 1
        self.needs_ids = bool(self._by_hash or share or len(self._excluded_ids))
        self.best = Best(int(settings.subset) if settings.subset >= 1 else _wanted(settings))
        # Whether the rows before needed theirs: a guess that costs time, never a result.
        self._ids_likely = True
        self._lock = Lock()

    @property
    def eligible(self) -> int:
        """Rows to choose from, after the sub-pool was drawn."""
        return min(self._seen, int(self._subset)) if self._subset >= 1 else self._seen

    def consider(self, piece: int, place: int, rows: Rows) -> None:
        """Count these rows, and keep those that are among the best so far."""
        scores, ids = self._read(rows)
        # Only those who ask for hashes use them: an empty array would not fit.
        hashes = draw_hashes(ids, self.seed) if self.needs_ids else _NO_HASHES
        allowed = self._allowed(scores, ids, hashes)
        keys = hashes if self._by_hash else -scores
        chosen = np.flatnonzero(allowed & self.best.admits(keys))
        self._ids_likely = bool(len(chosen))
        if len(chosen):
            ids = _ids(*rows.read("id")) if ids is None else ids
            places = np.empty((len(chosen), 3), np.int64)
            places[:, 0], places[:, 1], places[:, 2] = piece, place, chosen
            self.best.add(keys[chosen], Found(ids.take(pa.array(chosen)), scores[chosen], places))

    def scan(self, batch: pa.RecordBatch) -> None:
        """:meth:`consider` where no row's hash or place is asked for, in fewer steps."""
        column, bound = batch.column(self.by), self.best.bound
        if bound is None or column.null_count or not pa.types.is_floating(column.type):
            self.consider(0, 0, BatchRows(batch))
            return
        scores: NDArray[Any] = column.to_numpy()
        # The bound is one of these very scores, so nothing is rounded; a NaN is not above it.
        chosen = np.flatnonzero(scores >= -bound)
        missing = int(np.count_nonzero(scores != scores))
        with self._lock:
            self.rows += len(scores)
            self.nan += missing
            self._seen += len(scores) - missing
        ids = _ids(batch.column("id"))
        if len(chosen):
            best = scores[chosen].astype(np.float64)
            places = np.zeros((len(chosen), 3), np.int64)
            self.best.add(-best, Found(ids.take(pa.array(chosen)), best, places))

    def _allowed(
        self, scores: NDArray[np.float64], ids: pa.Array | None, hashes: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """The rows that may be selected; the others are counted."""
        allowed: NDArray[np.bool_] = ~np.isnan(scores)
        excluded, missing = 0, len(scores) - int(np.count_nonzero(allowed))
        if len(self._excluded_ids):
            known = self._excluded_ids.mask(ids, hashes)
            excluded = int(np.count_nonzero(known))
            missing -= excluded - int(np.count_nonzero(known & allowed))
            allowed &= ~known
        if self._share is not None:
            allowed &= hashes < self._share
        with self._lock:
            self.rows += len(scores)
            self.excluded += excluded
            self.nan += missing
            self._seen += int(np.count_nonzero(allowed))
        return allowed

    def _read(self, rows: Rows) -> tuple[NDArray[np.float64], pa.Array | None]:
        """The scores, NaN where there is none, and the ids if they are or may be needed."""
        if self.needs_ids or self._ids_likely:
            # Two columns at once are read faster than one after the other.
            column, ids = rows.read(self.by, "id")
            return self._scores(column), _ids(ids)
        return self._scores(*rows.read(self.by)), None

    def _scores(self, column: pa.Array) -> NDArray[np.float64]:
        if not pa.types.is_floating(column.type):
            raise SettingsError(f"the column {self.by!r} holds no numbers to select by")
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values.astype(np.float64)


_NO_HASHES = np.empty(0, np.uint64)


def _ids(column: pa.Array) -> pa.Array:
    if column.null_count:
        raise SelectionError(f"{column.null_count} rows have no id; score the pool again")
    plain = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column if plain else column.cast(pa.large_string())


def _check_enough(settings: SelectionSettings, draw: _Draw) -> None:
    if draw.eligible >= settings.k or (settings.at_most and draw.eligible):
        return
    why = []
    if draw.excluded:
        why.append(f"{draw.excluded} are excluded")
    if draw.nan:
        why.append(f"{draw.nan} have no score")
    if settings.subset:
        why.append(f"the sub-pool is {settings.subset:g}")
    reason = f" ({draw.rows} scored; {', '.join(why)})" if why else ""
    remedy = (
        "lower -k, or pass --at-most to take what is left" if draw.eligible else "score more images"
    )
    raise SelectionError(f"k = {settings.k}, but {draw.eligible} images are left{reason}; {remedy}")
