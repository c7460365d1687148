"""Which of two scores ranks the same images better by their true loss. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.clusters import among
from lloss.statistics.confidence_intervals import Clusters, Floats, Interval, bootstrap

MOST = 2000
"""Images that are compared: of more, so many are drawn, always the same. There are four million
pairs of them, and more narrow the interval by little."""


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
    score: Floats,
    other: Floats,
    loss: Floats,
    folds: Floats | None = None,
    clusters: Clusters = None,
) -> AccuracyDifference:
    """Subtract the ranking accuracy of ``other`` [N] from that of ``score`` [N].

    The interval is the paired bootstrap's: both scores are measured on the same drawn images, so
    that what makes a draw easy for both cancels. ``clusters`` of images are drawn whole. With
    ``folds`` [N] of a cross-validation only pairs within a fold are compared, see
    :func:`.ranking_figures`.
    """
    rows = np.arange(len(loss))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(len(rows)).permutation(len(rows))[:MOST])
    truth = np.asarray(loss, np.float64)[rows]
    pairs = truth[:, None] > truth
    if folds is not None:
        groups = np.asarray(folds)[rows]
        pairs &= groups[:, None] == groups
    first, second = (_halves(np.asarray(each, np.float64)[rows]) for each in (score, other))
    # In whole numbers below 2^53, so that sums are exact in any order.
    ahead, counted = pairs * (first - second), pairs.astype(np.float64)

    def differences(weights: Floats) -> dict[str, Floats]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"": _weighted(ahead, weights) / (2 * _weighted(counted, weights))}

    value = float(differences(np.ones((1, len(rows))))[""][0])
    found = bootstrap(len(rows), differences, among(clusters, rows))
    return AccuracyDifference(value, found.get("", (math.nan, math.nan)))


def _halves(score: Floats) -> NDArray[np.float64]:
    """2 where a row's score is above a column's, 1 where they tie: [N, N]."""
    return (score[:, None] > score).astype(np.float64) + (score[:, None] >= score)


def _weighted(pairs: Floats, weights: Floats) -> NDArray[np.float64]:
    """Sum over pairs [N, N], each as often as a draw of ``weights`` [R, N] has both images: [R]."""
    summed: NDArray[np.float64] = ((weights @ pairs.T) * weights).sum(1)
    return summed
