"""Positive weights of images from scores on any scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE = 4096
"""Rows, drawn at random, that say how the scores are distributed."""

_STEPS = 1024
"""Weights are multiples of 1/1024, lest a logarithm's last bit decide."""


class Weights:
    """Weights by rank: ``-log(1 - q)`` for a score that exceeds the share q of a sample.

    They are distributed as exponential variables are, with mean 1, whatever the scale of the
    scores: a predicted loss without a unit, entropy, or a margin.
    """

    def __init__(self, sample: NDArray[np.float64]) -> None:
        """Rank by a sample of scores, float64 [S], the highest worth labeling first."""
        self._sample = np.sort(sample)
        places = (np.arange(2 * len(sample) + 1) + 1) / (2 * len(sample) + 2)
        self._weights = np.maximum(np.rint(-np.log1p(-places) * _STEPS), 1) / _STEPS

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weight of each score, float64 [N]."""
        below = np.searchsorted(self._sample, scores, "left")
        weights: NDArray[np.float64] = self._weights[
            below + np.searchsorted(self._sample, scores, "right")
        ]
        return weights
