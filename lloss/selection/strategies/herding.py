"""The strategies ``herding`` and ``coverage``: images that stand for many others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.selection.hashing import draw_shares
from lloss.selection.herding import BLOCK, herd, kernel_width
from lloss.selection.strategies.strategy import EMBEDDING, Candidates, Picks, Strategy
from lloss.selection.unit_vectors import unit_integers

SAMPLE = 4
"""K images are picked from a sample of 4K, and of at least :data:`.BLOCK`."""


class Herding(Strategy):
    """Pick images that represent those of high scores, beside the labeled ones.

    The first pass draws a *priority sample* (Duffield, Lund & Thorup 2007,
    https://doi.org/10.1145/1314690.1314696): a row of weight w gets the key u / w, with u drawn
    from (0, 1] by its id, and the smallest keys are kept. With weights of at least 1 / (the first
    key left out) the sample gives an unbiased estimate of what picks cover of the whole pool,
    however large; a smaller pool is kept whole. :func:`.herd` picks from the sample.
    """

    name = "herding"
    title = "K images that represent those of high scores beside the labeled ones"
    vectors = (EMBEDDING,)
    labeled = True
    weighted = True
    class_weighted = True

    def limit(self, k: int) -> int | None:
        """Keep the sample, and one row more: its key says what the others stand for."""
        return max(BLOCK, SAMPLE * k) + 1

    def keys(self, ids: pa.Array, scores: NDArray[np.float64], seed: int) -> NDArray[Any]:
        """Draw a number for each id, and divide it by the weight."""
        return draw_shares(ids, seed) / scores

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Pick greedily what adds most."""
        weights = candidates.columns["weight"]
        if (bound := candidates.bound) is not None:
            kept = np.flatnonzero(candidates.columns["key"] < bound)
            kept = kept if len(kept) >= k else np.arange(len(candidates))
            candidates, weights = candidates.take(kept), np.maximum(weights[kept], 1 / bound)
        units = unit_integers(candidates.columns[EMBEDDING])
        labeled = unit_integers(candidates.labeled.get(EMBEDDING, units[:0]))
        rows, gains = herd(units, weights, k, labeled, kernel_width(units))
        return Picks(rows, self._reasons(candidates, rows, gains))

    def how(self, order: str, by: str) -> str:
        """Likeness, and the scores as weights."""
        return f"by coverage weighted {super().how(order, by)}"

    def _reasons(
        self, candidates: Candidates, rows: NDArray[np.int64], gains: NDArray[np.float64]
    ) -> list[str]:
        scores = candidates.columns["score"][rows].tolist()
        return [
            f"{_adds(gain)}; {candidates.by} {score:.3g}"
            for gain, score in zip(gains.tolist(), scores)
        ]


class Coverage(Herding):
    """Pick images that represent the pool beside the labeled ones, whatever their scores."""

    name = "coverage"
    title = "K images that represent the pool beside the labeled ones"
    uses_scores = False

    def how(self, order: str, by: str) -> str:
        """Nothing but likeness."""
        return "by coverage"

    def _reasons(
        self, candidates: Candidates, rows: NDArray[np.int64], gains: NDArray[np.float64]
    ) -> list[str]:
        return [_adds(gain) for gain in gains.tolist()]


def _adds(gain: float) -> str:
    """Say what a pick adds to the coverage: 0.015 is ``adds 1.5 % coverage``."""
    percent = 100 * gain
    if 0 < percent < 0.01:
        return "adds under 0.01 % coverage"
    return f"adds {percent:.0f} % coverage" if percent >= 10 else f"adds {percent:.2g} % coverage"
