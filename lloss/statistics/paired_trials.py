"""Two methods compared over paired trials: test, interval, labels to reach a figure. NumPy only.

A trial gives both methods the same images, first labels and seeds, so that what trials have in
common leaves the difference of the two; every function here takes one figure a trial, and assumes
that trials are independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.confidence_intervals import CONFIDENCE, Floats, Interval

EXACT = 20
"""Trials up to which all sign patterns are counted; above it, DRAWS of them are drawn."""

DRAWS = 20_000

_ROUNDING = 1e-9  # Sums of the same figures in another order differ by less, relative to their size


def sign_flip_p(differences: Floats) -> float:
    """Two-sided p of the paired permutation test (Fisher 1935, "The Design of Experiments", 21).

    If both methods are equal, each of the ``differences`` [T] is as likely with the other sign. p
    is the share of the 2^T sign patterns whose sum is as far from zero as the observed one or
    farther: exact for up to EXACT trials, otherwise ``(hits + 1) / (DRAWS + 1)`` of patterns drawn
    by a fixed seed (Phipson and Smyth 2010, "Permutation p-values should never be zero"). The
    least possible p is ``2 / 2^T``; without a trial, p is 1.
    """
    values = np.asarray(differences, np.float64)
    observed = abs(float(values.sum())) - _ROUNDING * float(np.abs(values).sum())
    if len(values) <= EXACT:
        # Both of a pattern and its opposite count or neither: the first sign can stay.
        sums = values[:1].copy()
        for value in values[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return float((np.abs(sums) >= observed).mean()) if len(values) else 1.0
    random = np.random.default_rng([len(values), 21])
    signs = random.integers(0, 2, (DRAWS, len(values)), np.int8) * 2 - 1
    hits = int((np.abs(signs @ values) >= observed).sum())
    return (hits + 1) / (DRAWS + 1)


def least_p(trials: int) -> float:
    """The smallest p that :func:`sign_flip_p` can give on so many trials."""
    return min(1.0, max(2.0 ** (1 - trials), 1 / (DRAWS + 1) if trials > EXACT else 0.0))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p of several tests so that all hold together (Holm 1979).

    The i-th smallest of m, from 0, becomes the largest of ``min(1, (m - j) p_j)`` over ``j <= i``.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted


def mean_interval(values: Floats) -> Interval:
    """The 95 % interval of the mean of one figure a trial, ``values`` [T]: Student's.

    It holds the mean where bootstraps of so few values do not: of 10 normal trials in 95 of 100
    simulations, the percentile bootstrap and BCa in 89 (of 5 trials, 95 against 84); where one
    trial in ten fails altogether, in 90 against 83 and 82. The studentized bootstrap is as good,
    and better for skewed figures, but up to 30 % wider.

    NaN, NaN for fewer than two trials, and where all are the same: that none of few trials differs
    is not a certainty.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return math.nan, math.nan
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    if spread <= _ROUNDING * float(np.abs(values).max()):
        return math.nan, math.nan
    reach = student_quantile(len(values) - 1) * spread / math.sqrt(len(values))
    return mean - reach, mean + reach


@cache
def student_quantile(freedom: int) -> float:
    """The t that a Student variable of whole degrees of ``freedom`` stays within, in 95 of 100.

    Abramowitz and Stegun 26.7.3 and 26.7.4 give the probability as a finite sum over the angle
    ``arctan(t / sqrt(freedom))``, which is bisected.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _student_within(middle, freedom) < CONFIDENCE else (low, middle)
        )
    return math.tan(low) * math.sqrt(freedom)


def _student_within(angle: float, freedom: int) -> float:
    sine, cosine, odd = math.sin(angle), math.cos(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (step - 1) / step
    if odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total


@dataclass(frozen=True)
class Reached:
    """The labels after which a curve first reaches a figure."""

    labels: float
    censored: bool  # the curve ends below: more than ``labels`` are needed

    def __str__(self) -> str:
        return f">{self.labels:,.0f}" if self.censored else f"{self.labels:,.0f}"


def labels_to_reach(labels: Floats, curve: Floats, figure: float) -> Reached:
    """Interpolate where a ``curve`` [C] over ``labels`` [C], ascending, first reaches ``figure``.

    Linear between cycles; the first cycle's labels where the curve begins at the figure or above.
    """
    reached = np.flatnonzero(np.asarray(curve) >= figure - _ROUNDING)
    if not len(reached):
        return Reached(float(labels[-1]), True)
    after = int(reached[0])
    if not after:
        return Reached(float(labels[0]), False)
    share = (figure - curve[after - 1]) / (curve[after] - curve[after - 1])
    return Reached(float(labels[after - 1] + share * (labels[after] - labels[after - 1])), False)


def median_reached(trials: Sequence[Reached]) -> Reached:
    """The median over trials, with "more than" for a trial that never reaches it.

    Of an even number, the mean of the two in the middle, more than it if either is censored.
    """
    ordered = sorted(trials, key=lambda reached: (reached.censored, reached.labels))
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    mean = sum(reached.labels for reached in middle) / len(middle)
    return Reached(mean, any(reached.censored for reached in middle))


def mean_after_first(curve: Floats) -> float:
    """The mean of a ``curve`` [C] over the cycles after the first; NaN where there is only one."""
    later: NDArray[np.float64] = np.asarray(curve, np.float64)[1:]
    return float(later.mean()) if len(later) else math.nan
