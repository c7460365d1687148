"""What the daemon shows of a scores folder of any size, read once and kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lloss.serve.daemon.store.image_table import ImageTable

from lloss.errors import SelectionError
from lloss.scores.scores_folder import RUN, ScoresFolder
from lloss.selection import Selection, SelectionSettings, select
from lloss.selection.selection import HERDING, TOP
from lloss.statistics.charts import LossHistogram

BEST = 20_000
"""Images of the largest predicted loss that are kept."""

_OTHERS = 16_384
"""Further images that are kept."""

_FOLDERS = 8
_AT_ONCE = 500

_HERDED = 1024
"""Picks of herding that are kept: up to so many, fewer picks are the first of more."""


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """The row of an image in its scores, with what it has."""

    loss: float = math.nan
    prediction: int = -1  # index of a class
    confidence: float = math.nan


class ScoreSummary:
    """A complete scores folder; ``spread`` is None if no image has a predicted loss."""

    def __init__(self, folder: ScoresFolder) -> None:
        self._folder = folder
        self.histogram = LossHistogram.of(folder.column("loss"))
        self._best = self._ranked(BEST)
        self._images = self._read([id for id, _ in self._best])
        self._others: dict[str, ScoredImage] = {}
        self._herds = SelectionSettings(k=1).resolved(folder.columns()).strategy == HERDING
        # By pool: picks, and how many images were taken before these
        self._herded: dict[str, tuple[list[tuple[str, float]], int]] = {}

    def images(self, ids: Sequence[str]) -> dict[str, ScoredImage]:
        """Look images up; those without a score have a row of defaults."""
        others = self._others
        known = {id: row for id in ids if (row := self._images.get(id) or others.get(id))}
        missing = [id for id in ids if id not in known]
        if missing:
            found = dict.fromkeys(missing, ScoredImage()) | self._read(missing)
            self._others = (others if len(others) < _OTHERS else {}) | found
            known |= found
        return known

    def next_free(self, images: ImageTable, pool: str, k: int) -> list[tuple[str, float]]:
        """The ids and losses of the K images that are next, as ``select`` chooses, or fewer."""
        if self._herds and (herded := self._next_herded(images, pool, k)):
            return herded
        free, _ = _first_free(self._best, images, pool, k)
        few = len(free) < k and len(self._best) == BEST
        return self._ranked(k, images.taken(pool)) if few else free

    def _next_herded(self, images: ImageTable, pool: str, k: int) -> list[tuple[str, float]]:
        """Picks that were made before, as long as only the first of them were taken since.

        So the order stays while people label, although each label changes the choice a little.
        """
        picks, before = self._herded.get(pool, ([], -1))
        free, passed = _first_free(picks, images, pool, k)
        if len(free) < k or sum(vars(images.counts(pool)).values()) != before + passed:
            exclude = images.taken(pool)
            picks = self._herd(k, exclude)
            self._herded[pool] = picks, len(exclude)
            free = picks[:k]
        return free

    def _herd(self, k: int, exclude: Collection[str]) -> list[tuple[str, float]]:
        wanted = max(k, _HERDED)
        if (chosen := self._select(wanted, HERDING, exclude)) is None:
            return []
        if k < chosen.eligible <= wanted:  # to pick all that are left, none are compared
            chosen = self._select(chosen.eligible - 1, HERDING, exclude) or chosen
        return list(zip(chosen.ids, chosen.scores.tolist()))

    def _ranked(self, k: int, exclude: Collection[str] = ()) -> list[tuple[str, float]]:
        chosen = self._select(k, TOP, exclude)
        return [] if chosen is None else list(zip(chosen.ids, chosen.scores.tolist()))

    def _select(self, k: int, strategy: str, exclude: Collection[str]) -> Selection | None:
        """None where no image is left, or where embeddings cannot be compared."""
        settings = SelectionSettings(k=k, strategy=strategy, at_most=True)
        try:
            return select(self._folder, settings, exclude)
        except SelectionError:
            return None

    def _read(self, ids: Sequence[str]) -> dict[str, ScoredImage]:
        names = self._folder.columns() if ids else ()
        if not names:
            return {}
        columns = [name for name in ("loss", "prediction", "confidence") if name in names]
        rows: dict[str, ScoredImage] = {}
        for batch in self._folder.scan(["id", *columns], ids):
            for row in batch.to_pylist():
                prediction = row.get("prediction", math.nan)
                rows[row["id"]] = ScoredImage(
                    row["loss"],
                    int(prediction) if math.isfinite(prediction) else -1,
                    row.get("confidence", math.nan),
                )
        return rows


def _first_free(
    ranked: Sequence[tuple[str, float]], images: ImageTable, pool: str, k: int
) -> tuple[list[tuple[str, float]], int]:
    """The first K that are free, or fewer, and how many before the last of them are not."""
    free: list[tuple[str, float]] = []
    for start in range(0, len(ranked), _AT_ONCE):
        states = images.states(pool, (id for id, _ in ranked[start : start + _AT_ONCE]))
        for place, one in enumerate(ranked[start : start + _AT_ONCE], start + 1):
            if one[0] not in states or states[one[0]].state == "free":
                free.append(one)
                if len(free) == k:
                    return free, place - k
    return free, len(ranked) - len(free)


def score_summary(folder: ScoresFolder) -> ScoreSummary:
    """The summary of a complete folder, read on the first call; ScoresError if it is damaged."""
    # A folder that the command line made can be scored again in its place.
    return _summary(folder.path, (folder.path / RUN).stat().st_mtime_ns)


@lru_cache(_FOLDERS)
def _summary(path: Path, _changed: int) -> ScoreSummary:
    return ScoreSummary(ScoresFolder(path))
