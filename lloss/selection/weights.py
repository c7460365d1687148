"""Positive weights of images: from scores on any scale, and from the classes predicted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE = 4096
"""Rows, drawn at random, that say how scores and predicted classes are distributed."""

RARITY = 0.6
"""Power of the inverse share of a class; compared in benchmarks/LOG.md."""

Floats = NDArray[np.float64]


class ScoreWeights:
    """Weights by rank: the share of a sample that a score exceeds.

    They are from 0 to 1 whatever the scale of the scores: a loss in a unit or without one, entropy,
    a margin. benchmarks/LOG.md compares them with others.
    """

    def __init__(self, sample: Floats) -> None:
        """Rank by a sample of scores, float64 [S], the highest worth labeling first."""
        self._sample = np.sort(sample)

    def __call__(self, scores: Floats) -> Floats:
        """Return the weight of each score, above 0, float64 [N].

        A score that the sample has counts as the middle of those equal to it.
        """
        below = np.searchsorted(self._sample, scores, "left")
        upto = np.searchsorted(self._sample, scores, "right")
        weights: Floats = (below + upto + 1) / (2 * len(self._sample) + 2)
        return weights


class ClassWeights:
    """Weights of predicted classes: a power of how rare a class is in a sample.

    With the power 1 the images of each predicted class weigh the same together (``class_weight``
    is ``balanced`` in scikit-learn, King & Zeng 2001); with less, frequent classes keep a part of
    what they are ahead. A class that the sample has not counts as if it had it once.
    """

    def __init__(self, sample: Floats) -> None:
        """Count a sample of predicted classes, float64 [S]; NaN, for none, is a class as others."""
        self._classes, counts = np.unique(sample, return_counts=True)
        share = len(sample) / max(len(self._classes), 1)
        self._factors = (share / np.append(counts, 1)) ** RARITY

    def __call__(self, classes: Floats) -> Floats:
        """Return the weight of each class, above 0, float64 [N]."""
        places = np.searchsorted(self._classes, classes)
        there = places < len(self._classes)
        near = self._classes[np.where(there, places, 0)] if len(self._classes) else classes
        there &= (near == classes) | (np.isnan(near) & np.isnan(classes))
        weights: Floats = self._factors[np.where(there, places, -1)]
        return weights
