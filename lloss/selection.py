"""Which K images to label next.

Scores stream through in record batches; only the best rows so far are held. The order is total,
(-score, id), so that the same scores, settings and seed give the same selection on any machine.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.errors import SelectionError, SettingsError

STRATEGIES = ("top", "diverse", "random")

CANDIDATES = 4
"""``diverse`` spreads its K picks over the best 4K."""

_DESCENDING = [("score", "descending"), ("id", "ascending")]
_BY_HASH = [("hash", "ascending"), ("id", "ascending")]


class ScoreSource(Protocol):
    """Scores that can be read more than once."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows, with these columns; ``id`` is one of every source's."""


@dataclass(frozen=True, slots=True)
class TableScores:
    """Scores at hand, as a :class:`ScoreSource`."""

    table: pa.Table

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See :class:`ScoreSource`."""
        yield from self.table.select(list(columns)).to_batches()


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
    """
    drawn = _Draw(settings, exclude)
    wanted = settings.k * (CANDIDATES if settings.strategy == "diverse" else 1)
    order = _BY_HASH if settings.strategy == "random" else _DESCENDING
    if settings.subset >= 1:
        best = _Best(int(settings.subset), _BY_HASH)
    else:
        best = _Best(wanted, order)
    for batch in source.batches(["id", settings.by]):
        best.add(drawn.eligible(batch))
    eligible = min(best.seen, int(settings.subset)) if settings.subset >= 1 else best.seen
    rows = best.table().sort_by(order).slice(0, wanted)
    _check_enough(settings, eligible, drawn)
    if settings.strategy == "diverse" and len(rows) > settings.k:
        rows = rows.take(_spread(source, rows, settings.k))
    return Selection(
        rows["id"].to_pylist(),
        rows["score"].to_numpy(),
        drawn.rows,
        drawn.excluded,
        drawn.nan,
        eligible,
        settings,
    )


class _Draw:
    """Which rows may be selected at all; counts the others."""

    def __init__(self, settings: SelectionSettings, exclude: Collection[str]) -> None:
        self.settings = settings
        self.exclude = pa.array(sorted(exclude), pa.string())
        self.rows = self.excluded = self.nan = 0
        self._share = settings.subset if 0 < settings.subset < 1 else 1.0

    def eligible(self, batch: pa.RecordBatch) -> pa.Table:
        """The rows to choose from, with the columns id, score and, where it is needed, hash."""
        self.rows += len(batch)
        if not (pa.types.is_floating(batch[self.settings.by].type)):
            raise SettingsError(f"the column {self.settings.by!r} holds no numbers to select by")
        table = pa.table(
            {
                "id": batch["id"].cast(pa.string()),
                "score": batch[self.settings.by].cast(pa.float64()),
            }
        )
        if len(self.exclude):
            known = pc.is_in(table["id"], value_set=self.exclude)
            self.excluded += pc.sum(known).as_py() or 0
            table = table.filter(pc.invert(known))
        missing = pc.fill_null(pc.is_nan(table["score"]), True)
        self.nan += pc.sum(missing).as_py() or 0
        table = table.filter(pc.invert(missing))
        if self.settings.subset == 0 and self.settings.strategy != "random":
            return table
        hashes = [draw_hash(id, self.settings.seed) for id in table["id"].to_pylist()]
        table = table.append_column("hash", pa.array(hashes, pa.uint64()))
        if self._share < 1:
            limit = pa.scalar(int(self._share * 2**64), pa.uint64())
            table = table.filter(pc.less(table["hash"], limit))
        return table


class _Best:
    """The best ``limit`` rows of all that were added, in no order, in O(limit) memory."""

    def __init__(self, limit: int, order: list[tuple[str, str]]) -> None:
        self.limit = limit
        self.order = order
        self.seen = 0
        self._held: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Consider these rows."""
        self.seen += len(table)
        self._rows += len(table)
        self._held.append(table)
        if self._rows > 2 * self.limit + 65_536:
            self._prune()

    def table(self) -> pa.Table:
        """The best rows."""
        self._prune()
        return self._held[0] if self._held else _NOTHING

    def _prune(self) -> None:
        if self._held:
            table = pa.concat_tables(self._held)
            if len(table) > self.limit:
                # The id makes every order total, so an unstable selection has one result.
                table = table.take(pc.select_k_unstable(table, self.limit, sort_keys=self.order))
            self._held, self._rows = [table.combine_chunks()], len(table)


_NOTHING = pa.table(
    {
        "id": pa.array([], pa.string()),
        "score": pa.array([], pa.float64()),
        "hash": pa.array([], pa.uint64()),
    }
)


def draw_hash(id: str, seed: int) -> int:
    """A uniform draw for an image from its id alone, so that it streams: 0 to 2**64 - 1."""
    digest = hashlib.blake2b(id.encode("utf-8", "surrogateescape"), digest_size=8, key=_key(seed))
    return int.from_bytes(digest.digest(), "little")


def _key(seed: int) -> bytes:
    return b"lloss" + str(seed).encode()[:59]


def draw_ids(ids: Iterable[str], k: int, seed: int) -> list[str]:
    """K ids at random, by :func:`draw_hash`: what ``random`` selects."""
    return heapq.nsmallest(k, ids, key=lambda id: (draw_hash(id, seed), id))


def _check_enough(settings: SelectionSettings, eligible: int, drawn: _Draw) -> None:
    if eligible >= settings.k or (settings.at_most and eligible):
        return
    why = []
    if drawn.excluded:
        why.append(f"{drawn.excluded} are excluded")
    if drawn.nan:
        why.append(f"{drawn.nan} have no score")
    if settings.subset:
        why.append(f"the sub-pool is {settings.subset:g}")
    reason = f" ({drawn.rows} scored; {', '.join(why)})" if why else ""
    remedy = "lower -k, or pass --at-most to take what is left" if eligible else "score more images"
    raise SelectionError(f"k = {settings.k}, but {eligible} images are left{reason}; {remedy}")


def _spread(source: ScoreSource, rows: pa.Table, k: int) -> NDArray[np.int64]:
    """Positions in ``rows`` of k picks that cover the others."""
    place = {id: at for at, id in enumerate(rows["id"].to_pylist())}
    wanted = pa.array(list(place), pa.string())
    embeddings: NDArray[Any] | None = None
    for batch in source.batches(["id", "embedding"]):
        mine = batch.filter(pc.is_in(batch["id"].cast(pa.string()), value_set=wanted))
        if not len(mine):
            continue
        vectors = mine["embedding"].flatten().to_numpy().reshape(len(mine), -1)
        if embeddings is None:
            embeddings = np.zeros((len(rows), vectors.shape[1]), np.float32)
        embeddings[[place[id] for id in mine["id"].to_pylist()]] = vectors
    assert embeddings is not None, "the candidates came from this very source"
    return k_center(embeddings, k)


def k_center(embeddings: NDArray[Any], k: int) -> NDArray[np.int64]:
    """k-center greedy: each pick is the row farthest from all picks before it; the first is row 0.

    Distances are Euclidean, between embeddings rounded to so few bits that every sum is an exact
    integer in float64. Whatever order a BLAS adds in, the result is the same bytes.

    Args:
        embeddings: float [N, D], best candidate first; ties fall to the earlier row.
        k: at most N.

    Returns:
        Row numbers in the order picked, int64 [k].
    """
    points = _as_integers(np.nan_to_num(np.asarray(embeddings, np.float64)))
    squares = (points * points).sum(1)
    nearest = np.full(len(points), np.inf)
    picked = np.empty(k, np.int64)
    row = 0
    for number in range(k):
        picked[number] = row
        distance = squares + squares[row] - 2 * (points @ points[row])
        nearest = np.minimum(nearest, distance)
        nearest[picked[: number + 1]] = -1
        row = int(nearest.argmax())
    return picked


def _as_integers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # The largest squared distance is 4 * D * (2**bits)**2 and must stay below 2**53.
    bits = (53 - 2 - int(np.ceil(np.log2(max(values.shape[1], 2))))) // 2
    largest = float(np.abs(values).max(initial=0.0))
    return np.rint(values / largest * (2.0**bits - 1)) if largest else values
