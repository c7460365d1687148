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
from lloss.selection import SelectionSettings, select
from lloss.statistics.charts import LossHistogram

BEST = 20_000
"""Images of the largest predicted loss that are kept: those that pages show."""

_OTHERS = 16_384
"""Further images that are kept."""

_FOLDERS = 8
_AT_ONCE = 500


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
        """The ids and losses of the best K images of a pool that are free, or fewer."""
        free: list[tuple[str, float]] = []
        for start in range(0, len(self._best), _AT_ONCE):
            some = self._best[start : start + _AT_ONCE]
            states = images.states(pool, (id for id, _ in some))
            free += [one for one in some if one[0] not in states or states[one[0]].state == "free"]
            if len(free) >= k:
                return free[:k]
        return free if len(self._best) < BEST else self._ranked(k, images.taken(pool))

    def _ranked(self, k: int, exclude: Collection[str] = ()) -> list[tuple[str, float]]:
        try:
            chosen = select(
                self._folder, SelectionSettings(k=k, strategy="top", at_most=True), exclude
            )
        except SelectionError:  # no image is left
            return []
        return list(zip(chosen.ids, chosen.scores.tolist()))

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


def score_summary(folder: ScoresFolder) -> ScoreSummary:
    """The summary of a complete folder, read on the first call; ScoresError if it is damaged."""
    # A folder that the command line made can be scored again in its place.
    return _summary(folder.path, (folder.path / RUN).stat().st_mtime_ns)


@lru_cache(_FOLDERS)
def _summary(path: Path, _changed: int) -> ScoreSummary:
    return ScoreSummary(ScoresFolder(path))
