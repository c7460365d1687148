"""Which K images to label next.

Scores stream through, piece by piece; only the best rows so far are held. The order is total,
by score and then by id, so that the same scores, settings and seed give the same selection on any
machine. Ids are read where they decide something: a row that cannot be selected needs none.
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
from lloss.scores.score_source import BatchRows, Rows, ScannedSource, ScoreSource, visit
from lloss.selection.excluded_ids import ExcludedIds
from lloss.selection.hashing import draw_hashes
from lloss.selection.kcenter import embeddings_of, k_center, spreadable
from lloss.selection.top_k import Best, Found

STRATEGIES = ("top", "diverse", "random")

ORDERS = ("highest", "lowest")
ORDER_OF = {"loss": "highest", "entropy": "highest", "confidence": "lowest", "margin": "lowest"}
"""Which end of a column is worth labeling first, where that is known."""

CANDIDATES = 4
"""``diverse`` spreads its K picks over the best 4K."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How to select.

    Attributes:
        k: how many.
        strategy: ``top`` takes the K best scores; ``diverse`` spreads K picks over the 4K
            best by k-center greedy on the embeddings (Sener & Savarese 2018), the first pick
            being the best score; ``random`` ignores the scores.
        by: the column that is the score.
        order: which scores are the best: ``highest`` or ``lowest``; "" for the column's own, see
            :data:`ORDER_OF`.
        subset: choose from a random sub-pool alone: a number of images (the paper's habit), or a
            share below 1; 0 for all.
        seed: of the sub-pool and of ``random``; an image is drawn by a hash of its id and this.
        at_most: take what there is when fewer than K are left.
    """

    k: int
    strategy: str = "top"
    by: str = "loss"
    order: str = ""
    subset: float = 0
    seed: int = 0
    at_most: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingsError(f"k = {self.k}: select at least 1 image")
        if self.strategy not in STRATEGIES:
            choices = ", ".join(STRATEGIES)
            raise SettingsError(f"strategy {self.strategy!r}: choose one of {choices}")
        if self.order not in ("", *ORDERS):
            raise SettingsError(f"order {self.order!r}: choose one of {', '.join(ORDERS)}")
        if self.by == "id":
            raise SettingsError(f"by {self.by!r}: select by a column of numbers, such as loss")
        whole = self.subset < 1 or float(self.subset).is_integer()
        if not (0 <= self.subset < math.inf and whole):
            raise SettingsError(
                f"subset {self.subset}: give a number of images, or a share between 0 and 1"
            )

    @property
    def direction(self) -> str:
        """``highest`` or ``lowest``, whichever scores are the best; "" where nothing says it."""
        return self.order or ORDER_OF.get(self.by, "")

    @property
    def how(self) -> str:
        """What decides, in words: ``by lowest confidence``."""
        return "at random" if self.strategy == "random" else f"by {self.direction} {self.by}"


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
        infinite: rows whose score is infinite; never selected.
        unspread: candidates of ``diverse`` left out because no distance to them can be measured.
    """

    ids: list[str]
    scores: NDArray[np.float64]
    pool: int
    excluded: int
    nan: int
    eligible: int
    settings: SelectionSettings
    infinite: int = 0
    unspread: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def table(self) -> pa.Table:
        """Columns ``id``, ``score`` and ``rank`` (from 1); metadata say what they are ranked by."""
        rank = pa.array(range(1, len(self.ids) + 1), pa.int64())
        ids = pa.array(self.ids, pa.string())
        table = pa.table({"id": ids, "score": self.scores, "rank": rank})
        said = {"strategy": self.settings.strategy, "by": self.settings.by}
        return table.replace_schema_metadata({**said, "order": self.settings.direction})

    def notes(self) -> list[str]:
        """What became of the images that were left out, in words."""
        excluded = [f"{self.excluded} excluded"] if self.excluded else []
        return [*excluded, *self.unusable()]

    def unusable(self) -> list[str]:
        """How many images could not be chosen for what their scores are, in words."""
        counts = {
            "without a score": self.nan,
            "with an infinite score left out": self.infinite,
            "with an infinite or extreme embedding left out": self.unspread,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]


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
        SettingsError: the column holds no numbers, or nothing says which end of it is the best.
    """
    draw = _Draw(settings, exclude)
    if isinstance(source, ScannedSource) and not (draw.needs_ids or settings.strategy == "diverse"):
        for batch in source.scan(["id", settings.by]):
            draw.scan(batch)
    else:
        visit(source, draw.consider)
    rows = draw.best.rows()
    if settings.subset >= 1 and settings.strategy != "random":
        rows = _by_score(rows, settings)
    rows = rows.take(np.arange(min(len(rows), _wanted(settings))))
    _check_enough(settings, draw)
    unspread = 0
    if settings.strategy == "diverse" and len(rows) > settings.k:
        candidates = len(rows)
        rows, unspread = _spread(source, rows, settings)
        _check_spread(settings, unspread, candidates)
    return Selection(
        rows.ids.to_pylist(),
        rows.scores,
        draw.rows,
        draw.excluded,
        draw.nan,
        draw.eligible,
        settings,
        draw.infinite,
        unspread,
    )


def _by_score(rows: Found, settings: SelectionSettings) -> Found:
    table = pa.table({"score": rows.scores, "id": rows.ids})
    first = "ascending" if settings.direction == "lowest" else "descending"
    order = pc.sort_indices(table, sort_keys=[("score", first), ("id", "ascending")])
    return rows.take(order.to_numpy())


def _spread(source: ScoreSource, rows: Found, settings: SelectionSettings) -> tuple[Found, int]:
    """The picks that cover the candidates, and how many candidates have no usable embedding."""
    embeddings = embeddings_of(source, rows.places)
    usable = np.flatnonzero(spreadable(embeddings))
    left_out = len(rows) - len(usable)
    if left_out:
        rows, embeddings = rows.take(usable), embeddings[usable]
    if len(rows) > settings.k:
        rows = rows.take(k_center(embeddings, settings.k))
    return rows, left_out


def _wanted(settings: SelectionSettings) -> int:
    return settings.k * (CANDIDATES if settings.strategy == "diverse" else 1)


class _Draw:
    """Finds the best of the rows that may be selected at all; counts the others."""

    def __init__(self, settings: SelectionSettings, exclude: Collection[str] | ExcludedIds) -> None:
        self.by = settings.by
        self.seed = settings.seed
        self.rows = self.excluded = self.nan = self.infinite = self._seen = 0
        self._lowest = settings.direction == "lowest"
        self._directed = bool(settings.direction) or settings.strategy == "random"
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
        keys = hashes if self._by_hash else scores if self._lowest else -scores
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
        # The bound is one of these very scores, so nothing is rounded; a NaN is not beyond it.
        chosen = np.flatnonzero(scores <= bound if self._lowest else scores >= -bound)
        finite = int(np.count_nonzero(np.isfinite(scores)))
        missing = 0
        if finite < len(scores):
            missing = int(np.count_nonzero(scores != scores))
            chosen = chosen[np.isfinite(scores[chosen])]
        with self._lock:
            self.rows += len(scores)
            self.nan += missing
            self.infinite += len(scores) - finite - missing
            self._seen += finite
        ids = _ids(batch.column("id"))
        if len(chosen):
            best = scores[chosen].astype(np.float64)
            places = np.zeros((len(chosen), 3), np.int64)
            keys = best if self._lowest else -best
            self.best.add(keys, Found(ids.take(pa.array(chosen)), best, places))

    def _allowed(
        self, scores: NDArray[np.float64], ids: pa.Array | None, hashes: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """The rows that may be selected; the others are counted."""
        allowed: NDArray[np.bool_] = np.isfinite(scores)
        unusable = None if allowed.all() else ~allowed
        excluded = missing = infinite = 0
        if len(self._excluded_ids):
            known = self._excluded_ids.mask(ids, hashes)
            excluded = int(np.count_nonzero(known))
            allowed &= ~known
            unusable = None if unusable is None else unusable & ~known
        if unusable is not None:
            missing = int(np.count_nonzero(unusable & np.isnan(scores)))
            infinite = int(np.count_nonzero(unusable)) - missing
        if self._share is not None:
            allowed &= hashes < self._share
        with self._lock:
            self.rows += len(scores)
            self.excluded += excluded
            self.nan += missing
            self.infinite += infinite
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
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise SettingsError(f"the column {self.by!r} holds no numbers to select by")
        if not self._directed:
            known = "; ".join(f"{name} {order} first" for name, order in ORDER_OF.items())
            raise SettingsError(
                f"by {self.by!r}: which end of it to label first is not known (known: {known}); "
                'pass --highest or --lowest (order "highest" or "lowest" in Python and JSON)'
            )
        if pa.types.is_integer(column.type):
            try:
                column = column.cast(pa.float64())
            except pa.ArrowInvalid as error:
                raise SettingsError(
                    f"the column {self.by!r} holds whole numbers beyond 2**53, which would be "
                    "rounded; select by another column"
                ) from error
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
    if draw.infinite:
        why.append(f"{draw.infinite} have an infinite score")
    if settings.subset:
        why.append(f"the sub-pool is {settings.subset:g}")
    reason = f" ({draw.rows} scored; {', '.join(why)})" if why else ""
    remedy = (
        "lower k, or pass --at-most to take what is left" if draw.eligible else "score more images"
    )
    raise SelectionError(f"k = {settings.k}, but {draw.eligible} images are left{reason}; {remedy}")


def _check_spread(settings: SelectionSettings, left_out: int, candidates: int) -> None:
    usable = candidates - left_out
    if usable >= settings.k or (settings.at_most and usable):
        return
    raise SelectionError(
        f"{left_out} of the {candidates} candidates have an infinite or extreme embedding, and "
        f"k = {settings.k} cannot be spread over the others; choose --strategy top"
    )
