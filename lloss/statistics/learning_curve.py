"""What more labels are expected to bring, by the figures of the cycles so far. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lloss.statistics.confidence_intervals import Interval, Z, usable

LEAST = 3
"""Points of a curve, at least: through two of them any curve of two parameters goes."""


@dataclass(frozen=True)
class CurvePoint:
    """A figure that was measured after training on so many labeled images."""

    labeled: int
    value: float  # 0 to 1, higher is better
    interval: Interval | None = None  # its 95 % interval


@dataclass(frozen=True)
class ExpectedGain:
    """What the next labels are expected to add to a figure.

    Attributes:
        labels: how many more.
        gain: expected difference of the figure, on its scale of 0 to 1.
        interval: its 95 % interval.
        now: the figure on the fitted curve, with the labels of now.
    """

    labels: int
    gain: float
    interval: Interval
    now: float


def expected_gain(points: Sequence[CurvePoint], labels: int) -> ExpectedGain | None:
    """Continue the curve by so many ``labels``; None for fewer than :data:`LEAST` points.

    The error, 1 less the figure, is taken to fall as a power of the number of labels (Hestness et
    al. 2017, "Deep Learning Scaling is Predictable, Empirically"; Cortes et al. 1993): a straight
    line in logarithms, fitted by least squares with the points weighted by their intervals. The
    interval is that of the line's parameters, by the delta method; where the points scatter by more
    than their intervals say, it is so much wider.
    """
    usable_points = [p for p in points if p.labeled > 0 and 0 <= p.value < 1]
    if len({p.labeled for p in usable_points}) < LEAST or labels <= 0:
        return None
    errors = np.array([1 - p.value for p in usable_points])
    deviations = np.array([_deviation(p) for p in usable_points])
    weighted = np.isfinite(deviations).all()
    sigma = deviations / errors if weighted else np.ones(len(errors))  # of the logarithms
    counts = np.array([float(p.labeled) for p in usable_points])
    center = math.log(counts[-1])
    design = np.stack([np.ones(len(counts)), np.log(counts) - center], 1)
    precision = (design / sigma[:, None] ** 2).T @ design
    covariance = np.linalg.inv(precision)
    level, slope = covariance @ (design / sigma[:, None] ** 2).T @ np.log(errors)
    residuals = (np.log(errors) - design @ (level, slope)) / sigma
    scatter = float(residuals @ residuals) / (len(errors) - 2)
    covariance = covariance * (max(scatter, 1.0) if weighted else scatter)
    further = math.log(counts[-1] + labels) - center
    error, later = math.exp(level), math.exp(level + slope * further)
    gain = error - later
    gradient = np.array([gain, -later * further])
    reach = Z * math.sqrt(max(float(gradient @ covariance @ gradient), 0.0))
    return ExpectedGain(labels, gain, (gain - reach, gain + reach), 1 - error)


def _deviation(point: CurvePoint) -> float:
    """Standard deviation of a figure, by its 95 % interval; NaN without one."""
    if point.interval is None or not usable(point.interval):
        return math.nan
    low, high = point.interval
    return (high - low) / (2 * Z) if high > low else math.nan
