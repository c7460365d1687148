"""Which of two scores ranks the same images better by their true loss. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.confidence_intervals import Floats, Interval, bootstrap

_ROWS = 2048


@dataclass(frozen=True)
class AccuracyDifference:
    """How much more pairs one score orders right than another, on the same images.

    Attributes:
        value: difference of the two ranking accuracies, -1 to 1; NaN without a pair.
        interval: its 95 % interval; NaN, NaN where it is undefined.
    """

    value: float
    interval: Interval


def compare_rankings(
    score: Floats, other: Floats, loss: Floats, folds: Floats | None = None
) -> AccuracyDifference:
    """Subtract the ranking accuracy of ``other`` [N] from that of ``score`` [N].

    The interval is the paired bootstrap's: both scores are measured on the same drawn images, so
    that what makes a draw easy for both cancels. With ``folds`` [N] of a cross-validation only
    pairs within a fold are compared, see :func:`.ranking_figures`.
    """
    loss, count = np.asarray(loss, np.float64), len(loss)
    scores = [np.asarray(each, np.float64) for each in (score, other)]
    groups = np.zeros(count) if folds is None else np.asarray(folds)

    def differences(weights: Floats) -> dict[str, Floats]:
        ahead, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for start in range(0, count, _ROWS):
            rows = slice(start, start + _ROWS)
            larger = (loss[rows, None] > loss) & (groups[rows, None] == groups)
            one, two = (_halves(each, rows) for each in scores)
            # Whole numbers below 2^53, so that the sums are exact in any order.
            ahead += _weighted(larger * (one - two), weights, rows)
            pairs += _weighted(larger.astype(np.float64), weights, rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"": ahead / (2 * pairs)}

    value = float(differences(np.ones((1, count)))[""][0]) if count else math.nan
    return AccuracyDifference(value, bootstrap(count, differences).get("", (math.nan, math.nan)))


def _halves(score: Floats, rows: slice) -> NDArray[np.float64]:
    """2 where the score orders the pair as a larger loss of the row would, 1 where it ties."""
    return (score[rows, None] > score).astype(np.float64) + (score[rows, None] >= score)


def _weighted(pairs: Floats, weights: Floats, rows: slice) -> NDArray[np.float64]:
    """Sum pairs [rows, N], each as often as a draw [R, N] of ``weights`` has both images: [R]."""
    summed: NDArray[np.float64] = ((weights @ pairs.T) * weights[:, rows]).sum(1)
    return summed
