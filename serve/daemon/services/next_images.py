"""Which images a selection would hand out next, without a scan of the scores for every look."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lloss.serve.daemon.store.catalog import Catalog

from lloss.errors import SelectionError
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import SelectionSettings, select

_DEPTH = 5000
"""Images that a scan keeps."""


@dataclass(frozen=True)
class _Candidates:
    """Ids and scores, best first; ``complete`` if no other image with a score was free."""

    images: Sequence[tuple[str, float]]
    complete: bool
    time: float


class Preview:
    """The best images of a scores folder, scanned again only after most of them were taken."""

    def __init__(self, folder: ScoresFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._best: _Candidates | None = None  # whether they are taken or not
        self._rest: _Candidates | None = None  # that were not taken at a time

    def free(self, catalog: Catalog, pool: str, k: int) -> list[tuple[str, float]]:
        """The best K images of a pool that are free, or fewer; ids and scores."""
        free: list[tuple[str, float]] = []
        for attempt in range(3):
            candidates = self._candidates(catalog, pool, k, attempt)
            free = _free(catalog, pool, candidates.images, k)
            if len(free) >= k or candidates.complete:
                break
        return free

    def _candidates(self, catalog: Catalog, pool: str, k: int, attempt: int) -> _Candidates:
        """The best, then the cached rest, then the rest as it is now."""
        with self._lock:
            if attempt == 0:
                self._best = self._best or self._scan(_DEPTH, (), 0.0)
                return self._best
            rest = self._rest
            if attempt == 2 or not rest or catalog.images.freed_since(pool, rest.time):
                now = time.time()
                rest = self._scan(max(k, _DEPTH), catalog.images.taken(pool), now)
            self._rest = rest
            return rest

    def _scan(self, k: int, exclude: Collection[str], time: float) -> _Candidates:
        try:
            chosen = select(self._folder, SelectionSettings(k=k, at_most=True), exclude)
        except SelectionError:  # no image is left
            return _Candidates((), True, time)
        images = list(zip(chosen.ids, chosen.scores.tolist()))
        return _Candidates(images, len(images) < k, time)


def _free(
    catalog: Catalog, pool: str, images: Sequence[tuple[str, float]], k: int
) -> list[tuple[str, float]]:
    free: list[tuple[str, float]] = []
    size = max(k, 100)
    for start in range(0, len(images), size):
        some = images[start : start + size]
        states = catalog.images.states(pool, (id for id, _ in some))
        free += [
            (id, score) for id, score in some if id not in states or states[id].state == "free"
        ]
        if len(free) >= k:
            break
    return free[:k]
