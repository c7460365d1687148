"""From a score ``p`` that only ranks to a loss in the task's own unit: ``loss = exp(a p + b)``.

A head that learned from pairs predicts losses up to their unit: its ``p`` may be shifted and
stretched. The two numbers are fitted on losses of images that the network was not trained on, so
that the mean of such images' losses is predicted. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.clusters import among, design_effect, sums_by
from lloss.statistics.confidence_intervals import Clusters, Floats

LEAST = 20  # Unseen images: of fewer, two fitted numbers say nothing

BINS, LEAST_OF_BIN = 10, 5

FLATTEST = 0.05
"""Least ``a`` in units of the predictions' deviation. The order of images has to stay, also where
the fit finds none or the opposite one, and two losses are equal in float32 below a difference of
1e-7 of them."""

EXPONENT = 60.0
"""Beyond this and its negative the loss goes on in a straight line and in its reciprocal: exp would
overflow float32 from 88 on, and a limit would make ties."""

_STEPS = 100  # Of Newton's method, which needs about six


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Images of similar predictions: what was predicted for them, and what was true."""

    images: int
    predicted: float  # mean predicted loss
    true: float  # mean true loss
    error: float  # standard error of the true mean


@dataclass(frozen=True, slots=True, kw_only=True)
class LossUnit:
    """How scores become losses: ``exp(a p + b)``; by default positive, but in no unit."""

    name: str = ""  # of the unit, such as "nats"; "" where nothing was fitted
    a: float = 1.0  # above 0: the order is that of the scores
    b: float = 0.0
    errors: tuple[float, float] | None = None  # standard errors of a and b
    images: int = 0  # that it was fitted on
    source: str = ""  # what images these are
    # On those images, by deciles of the predicted loss (fewer bins for fewer than 50 images)
    calibration: tuple[CalibrationBin, ...] = ()
    note: str = ""  # why there is no unit, or what to keep in mind about it

    def losses(self, scores: Floats) -> NDArray[np.float64]:
        """Compute losses, float64 [N], of scores [N]."""
        x = self.a * (np.asarray(scores, np.float64) + self.b / self.a)
        above, below = np.maximum(x - EXPONENT, 0), np.maximum(-EXPONENT - x, 0)
        found: NDArray[np.float64] = np.exp(x.clip(-EXPONENT, EXPONENT)) * (1 + above) / (1 + below)
        return found

    def scores(self, losses: Floats) -> NDArray[np.float64]:
        """Reverse :meth:`losses`."""
        values = np.asarray(losses, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.log(values)
            x = np.where(x > EXPONENT, EXPONENT - 1 + values / math.exp(EXPONENT), x)
            x = np.where(x < -EXPONENT, 1 - EXPONENT - math.exp(-EXPONENT) / values, x)
        found: NDArray[np.float64] = x / self.a - self.b / self.a
        return found

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        if not self.name:
            return f"in no unit{note}"
        # Of steep or flat scores too, as many digits as matter.
        b = f"{abs(self.b):.3g}"
        formula = f"exp({self.a:.3g} p {'−' if self.b < 0 else '+'} {b})"
        return f"in {self.name}: {formula}, fitted on {self.images:,} {self.source}{note}"


IN_NO_UNIT = LossUnit()


def fit_unit(
    predicted: Floats,
    losses: Floats,
    name: str,
    source: str = "held-out images",
    clusters: Clusters = None,
) -> LossUnit:
    """Fit ``a`` and ``b`` on images that the network was not trained on.

    The likelihood is that of a Gamma distribution with mean ``mu = exp(a p + b)``: it minimizes
    ``sum(log mu + l / mu)``, which needs no logarithm of a loss of 0 and estimates the mean without
    bias whatever the distribution (McCullagh and Nelder 1989, "Generalized Linear Models", chapter
    8). The prior of ``a`` is worth one image, so that a fit exists for any losses. The standard
    errors are the sandwich's, which do not rely on the distribution either; where images are in
    clusters, the scores of each are summed first (Liang and Zeger 1986, "Longitudinal data analysis
    using generalized linear models").

    Args:
        predicted: scores [N].
        losses: true losses [N], from 0 on.
        name: of the losses' unit.
        source: the images, in the plural.
        clusters: of images of one scene: fewer than :data:`LEAST` are too few.

    Returns:
        The unit; one in no unit, whose note says why, for too few images or losses that have no
        such fit. Images whose score or loss is not finite are left out; the note counts them.
    """
    p, l = (np.asarray(values, np.float64) for values in (predicted, losses))
    finite = np.isfinite(p) & np.isfinite(l)
    p, l, clusters = p[finite], l[finite], among(clusters, finite)
    if why := _why_not(l, clusters):
        return LossUnit(note=why)
    center, spread = p.mean(), p.std()
    if spread <= 1e-6 * (1 + abs(center)):
        spread = 1.0  # all are equal: only the mean can be fitted
    a, b, covariance = _gamma_fit((p - center) / spread, l, clusters)
    # a z + b of z = (p - center) / spread, in terms of p
    to_scores = np.array([[1 / spread, 0.0], [-center / spread, 1.0]])
    errors = np.sqrt(np.diag(to_scores @ covariance @ to_scores.T))
    notes = [f"{(~finite).sum()} without a finite loss are left out"] * (not finite.all())
    if a < FLATTEST:
        notes.append("the prediction says little about how large the loss is")
        a, b = FLATTEST, math.log(np.mean(l * np.exp(-FLATTEST * (p - center) / spread)))
    unit = LossUnit(
        name=name,
        a=float(a / spread),
        b=float(b - a * center / spread),
        errors=(float(errors[0]), float(errors[1])),
        images=len(l),
        source=source,
        note="; ".join(notes),
    )
    return dataclasses.replace(unit, calibration=calibration(unit, p, l, clusters))


def calibration(
    unit: LossUnit, predicted: Floats, losses: Floats, clusters: Clusters = None
) -> tuple[CalibrationBin, ...]:
    """Compare predicted with true losses, [N] each and finite, in bins of equal size.

    The bins go from the lowest predictions to the highest.
    """

    def error(rows: NDArray[np.int64], values: Floats) -> float:
        effect = design_effect(values - values.mean(), among(clusters, rows))
        return float(values.std(ddof=1) / math.sqrt(len(values)) * math.sqrt(effect))

    order = np.lexsort((np.asarray(losses), np.asarray(predicted)))
    means, true = unit.losses(predicted)[order], np.asarray(losses, np.float64)[order]
    count = min(BINS, len(true) // LEAST_OF_BIN)
    bins = np.array_split(np.arange(len(true)), count) if count else []
    return tuple(
        CalibrationBin(
            images=len(rows),
            predicted=float(means[rows].mean()),
            true=float(true[rows].mean()),
            error=error(order[rows], true[rows]),
        )
        for rows in bins
    )


def _why_not(losses: NDArray[np.float64], clusters: Clusters) -> str:
    """Say why no unit can be fitted on these losses; "" where one can."""
    if clusters is not None and (scenes := int(clusters.max()) + 1) < LEAST:
        many = f"{len(losses)} unseen images are of {scenes} scenes"
        return f"but for near-duplicates, {many}: too few for one, {LEAST} are needed"
    if len(losses) < LEAST:
        return f"{len(losses)} losses of unseen images are too few for one, {LEAST} are needed"
    if losses.min() < 0:
        return f"losses below 0, such as {losses.min():.3g}, have none"
    if not losses.max():
        return f"the losses of all {len(losses)} unseen images are 0"
    return ""


def _gamma_fit(
    z: NDArray[np.float64], losses: NDArray[np.float64], clusters: Clusters
) -> tuple[float, float, NDArray[np.float64]]:
    """Return slope and intercept of log mu on ``z``, standardized, and their covariance [2, 2].

    The objective is convex: Newton's steps, halved where they lead up, find its minimum.
    """
    scale = losses.mean()
    l, columns, prior = losses / scale, np.stack([z, np.ones_like(z)], 1), np.diag([1.0, 0.0])

    def ratios(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(l > 0, l * np.exp(-(columns @ theta)), 0)

    def objective(theta: NDArray[np.float64]) -> float:
        return float((columns @ theta + ratios(theta)).sum() + theta[0] ** 2 / 2)

    theta = np.zeros(2)
    for _ in range(_STEPS):
        ratio = ratios(theta)
        gradient = columns.T @ (1 - ratio) + prior @ theta
        step = np.linalg.solve(columns.T @ (ratio[:, None] * columns) + prior, gradient)
        now = objective(theta)
        while not objective(theta - step) <= now and np.abs(step).max() > 1e-12:
            step /= 2
        theta = theta - step
        if np.abs(step).max() < 1e-10:
            break
    ratio = ratios(theta)
    inverse = np.linalg.inv(columns.T @ (ratio[:, None] * columns) + prior)
    each = sums_by(clusters, columns * (1 - ratio)[:, None])
    return float(theta[0]), float(theta[1] + math.log(scale)), inverse @ (each.T @ each) @ inverse
