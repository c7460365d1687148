"""The best of a scores folder, kept for whoever looks at what is next again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lloss.errors import SelectionError
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import SelectionSettings, select

_BEST = 5000
"""Images of a folder that are kept, best first."""

_STALE_SECONDS = 10.0
"""After which pending images may have expired."""


@dataclass(frozen=True)
class Best:
    """The best images of a folder, of all or of those that were not taken.

    Attributes:
        images: ids and scores, best first.
        whole: whether there is no other that has a score.
    """

    images: Sequence[tuple[str, float]]
    whole: bool

    @classmethod
    def of(cls, folder: ScoresFolder, k: int, exclude: Collection[str] = ()) -> Best:
        """By a scan of the folder."""
        try:
            chosen = select(folder, SelectionSettings(k=k, at_most=True), exclude)
        except SelectionError:  # nothing is left
            return cls((), True)
        return cls(list(zip(chosen.ids, chosen.scores.tolist())), len(chosen) < k)


@dataclass(frozen=True)
class _Left:
    """Those that were not taken at a time."""

    best: Best
    version: object
    at: float


class Preview:
    """The best of a folder: it is scanned once, and anew only when nearly all of them are taken."""

    def __init__(self, folder: ScoresFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._best: Best | None = None
        self._left: _Left | None = None

    def best(self) -> Best:
        """The best, whoever has them."""
        with self._lock:
            if self._best is None:
                self._best = Best.of(self._folder, _BEST)
            return self._best

    def left(
        self, k: int, version: object, taken: Callable[[], Collection[str]], spent: Best
    ) -> Best:
        """The best K (or more) that were not taken a while ago; by now some of them may be.

        Args:
            k: how many.
            version: the same as long as no image becomes free, expiry aside.
            taken: gives the ids of those that are taken now.
            spent: of which too few are free; whoever gets another one may look at that instead.
        """
        with self._lock:
            kept, now = self._left, time.monotonic()
            if (
                kept is None
                or kept.best is spent
                or kept.version != version
                or now - kept.at > _STALE_SECONDS
                or not (kept.best.whole or len(kept.best.images) >= k)
            ):
                best = Best.of(self._folder, max(k, _BEST), taken())
                kept = self._left = _Left(best, version, now)
            return kept.best
