"""The best of a scores folder, kept for whoever looks at what is next again and again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lloss.errors import SelectionError
from lloss.scores import RUN, ScoresFolder
from lloss.selection import SelectionSettings, select

_BEST = 5000
"""Images of a folder that are kept, best first."""

_FOLDERS = 16

_STALE_SECONDS = 10.0
"""After which pending images may have expired."""


@dataclass(frozen=True)
class Best:
    """The best images of a folder.

    Attributes:
        images: ids and scores, best first.
        whole: whether the folder holds no other that has a score.
    """

    images: Sequence[tuple[str, float]]
    whole: bool


class Previews:
    """Scans a folder once, and anew only when nearly all of its best are taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._best: OrderedDict[object, Best] = OrderedDict()
        self._beyond: dict[object, tuple[object, float, list[tuple[str, float]]]] = {}

    def best(self, folder: ScoresFolder) -> Best:
        """The best of a folder, whoever has them."""
        known = _identity(folder)
        with self._lock:
            if known not in self._best:
                chosen = _top(folder, _BEST, ())
                self._best[known] = Best(chosen, len(chosen) < _BEST)
            self._best.move_to_end(known)
            while len(self._best) > _FOLDERS:
                old, _ = self._best.popitem(last=False)
                self._beyond.pop(old, None)
            return self._best[known]

    def beyond(
        self,
        folder: ScoresFolder,
        version: object,
        k: int,
        taken: Callable[[], Collection[str]],
    ) -> list[tuple[str, float]]:
        """The best K of a folder that are not taken, by a scan of all of it.

        Args:
            folder: to scan.
            version: the same as long as the same images are taken, expiry aside.
            k: how many.
            taken: gives the ids of those that are.
        """
        known, now = _identity(folder), time.monotonic()
        with self._lock:
            kept = self._beyond.get(known)
            if kept is None or kept[0] != (version, k) or now - kept[1] > _STALE_SECONDS:
                kept = self._beyond[known] = ((version, k), now, _top(folder, k, taken()))
            return kept[2]


def _identity(folder: ScoresFolder) -> object:
    """A complete folder of a job never changes; one that was adopted may be scored anew."""
    return folder.path, (folder.path / RUN).stat().st_mtime_ns


def _top(folder: ScoresFolder, k: int, exclude: Collection[str]) -> list[tuple[str, float]]:
    try:
        chosen = select(folder, SelectionSettings(k=k, at_most=True), exclude)
    except SelectionError:  # nothing is left
        return []
    return list(zip(chosen.ids, chosen.scores.tolist()))
