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
from numpy.typing import NDArray

from lloss.best import COLUMNS, Best
from lloss.diversity import embeddings_of, k_center
from lloss.errors import SelectionError, SettingsError
from lloss.exclusion import ExcludedIds
from lloss.sampling import draw_hashes
from lloss.sources import Rows, ScoreSource, visit

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
    source: ScoreSource, settings: SelectionSettings, exclude: Collection[str] = ()
) -> Selection:
    """Choose K images.

    Args:
        source: scores with the columns ``id``, ``settings.by``, and ``embedding`` for ``diverse``.
        settings: how.
        exclude: ids never to select, such as the labeled ones; they may be unknown to the source.

    Raises:
        SelectionError: fewer than K are left and ``at_most`` is off.
        ScoresError: the source cannot be read or lacks a column.
    """
    draw = _Draw(settings, exclude)
    visit(source, draw.consider)
    rows = draw.best.table()
    if settings.subset >= 1 and settings.strategy != "random":
        rows = rows.sort_by([("score", "descending"), ("id", "ascending")])
    rows = rows.slice(0, _wanted(settings))
    _check_enough(settings, draw)
    if settings.strategy == "diverse" and len(rows) > settings.k:
        rows = rows.take(pa.array(k_center(embeddings_of(source, rows), settings.k)))
    return Selection(
        rows["id"].to_pylist(),
        rows["score"].to_numpy(),
        draw.rows,
        draw.excluded,
        draw.nan,
        draw.eligible,
        settings,
    )


def _wanted(settings: SelectionSettings) -> int:
    return settings.k * (CANDIDATES if settings.strategy == "diverse" else 1)


class _Draw:
    """Finds the best of the rows that may be selected at all; counts the others."""

    def __init__(self, settings: SelectionSettings, exclude: Collection[str]) -> None:
        self.by = settings.by
        self.seed = settings.seed
        self.rows = self.excluded = self.nan = self._seen = 0
        self._excluded_ids = ExcludedIds(exclude, settings.seed)
        self._subset = settings.subset
        self._limit = int(settings.subset * 2**64) if 0 < settings.subset < 1 else None
        self._by_hash = settings.strategy == "random" or settings.subset >= 1
        self._needs_ids = bool(self._by_hash or self._limit is not None or exclude)
        self.best = Best(int(settings.subset) if settings.subset >= 1 else _wanted(settings))
        self._lock = Lock()

    @property
    def eligible(self) -> int:
        """Rows to choose from, after the sub-pool was drawn."""
        return min(self._seen, int(self._subset)) if self._subset >= 1 else self._seen

    def consider(self, piece: int, place: int, rows: Rows) -> None:
        """Count these rows, and keep those that are among the best so far."""
        scores = self._scores(rows)
        ids = hashes = None
        excluded = np.zeros(len(scores), np.bool_)
        if self._needs_ids:
            ids = _ids(rows)
            hashes = draw_hashes(ids, self.seed)
            excluded = self._excluded_ids.mask(ids, hashes)
        missing = np.isnan(scores) & ~excluded
        allowed = ~(missing | excluded)
        if self._limit is not None and hashes is not None:
            allowed &= hashes < np.uint64(self._limit)
        with self._lock:
            self.rows += len(scores)
            self.excluded += int(np.count_nonzero(excluded))
            self.nan += int(np.count_nonzero(missing))
            self._seen += int(np.count_nonzero(allowed))
        keys = hashes if self._by_hash and hashes is not None else -scores
        chosen = np.flatnonzero(allowed & self.best.admits(keys))
        if len(chosen):
            ids = _ids(rows) if ids is None else ids
            self.best.add(keys[chosen], _table(ids, scores, piece, place, chosen))

    def _scores(self, rows: Rows) -> NDArray[np.float64]:
        """The scores, float64, NaN where there is none."""
        column = rows.column(self.by)
        if not pa.types.is_floating(column.type):
            raise SettingsError(f"the column {self.by!r} holds no numbers to select by")
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values.astype(np.float64)


def _ids(rows: Rows) -> pa.Array:
    ids = rows.column("id")
    if ids.null_count:
        raise SelectionError(f"{ids.null_count} rows have no id; score the pool again")
    plain = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    return ids if plain else ids.cast(pa.large_string())


def _table(
    ids: pa.Array, scores: NDArray[np.float64], piece: int, place: int, chosen: NDArray[np.int64]
) -> pa.Table:
    columns = [
        ids.take(pa.array(chosen)).cast(pa.large_string()),
        pa.array(scores[chosen]),
        pa.array(np.full(len(chosen), piece)),
        pa.array(np.full(len(chosen), place)),
        pa.array(chosen),
    ]
    return pa.Table.from_arrays(columns, schema=COLUMNS)


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
