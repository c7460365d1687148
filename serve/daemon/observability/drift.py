"""Does live traffic look to the model as the pool of its export did?

The latest predicted losses, of requests and of jobs, are compared with the quantiles in the model's
manifest by the population stability index over the reference's deciles.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.loss_distribution import LossReference

WINDOW = 4096
"""Latest live images that are compared."""

LEAST = 500
"""Live images below which nothing is measured: chance alone would move the index too far."""

_ROUNDING = 1e-3
"""Share of the largest loss by which two providers' losses of one image may differ: losses that
many images share count as the same one."""

_SMALLEST = 1e-30
"""Positive losses below it, such as the 0 of a provider that flushes tiny numbers, count as it."""

_PRIOR = 0.5
"""Images added to each bin, so that an empty one has a small share: the prior of H. Jeffreys, "An
invariant form for the prior probability in estimation problems", 1946."""

Values = NDArray[np.float64]


class Drift:
    """A window of live predicted losses, compared with a reference. Thread-safe."""

    def __init__(self, window: int = WINDOW, least: int = LEAST) -> None:
        self._window = np.empty(window, np.float32)
        self._least = least
        self._seen = 0
        self._lock = threading.Lock()
        self._reference: _Reference | None = None
        self._model = ""

    def against(
        self, reference: LossReference | None, model: str = "", positive: bool = False
    ) -> None:
        """Empty the window, then compare the losses of this model only.

        ``positive`` are losses in a unit: their logarithms are compared, of which the rounding is
        alike for all.
        """
        prepared = _Reference(reference, positive) if reference else None
        with self._lock:
            self._reference, self._model, self._seen = prepared, model, 0

    def add(self, losses: NDArray[np.float32], model: str = "") -> None:
        """Take live losses into the window.

        Args:
            losses: float32 [N]; NaN and infinite ones are left out.
            model: that predicted them. A replaced model's last losses are left out.
        """
        finite = losses[np.isfinite(losses)]
        size = len(self._window)
        with self._lock:
            if model == self._model:
                self._seen += len(finite)
                places = np.arange(self._seen - len(finite), self._seen) % size
                self._window[places[-size:]] = finite[-size:]

    @property
    def images(self) -> int:
        """Live images in the window."""
        return min(self._seen, len(self._window))

    def psi(self) -> float:
        """Return the population stability index, from 0; NaN where nothing can be measured.

        By custom a shift is moderate from .1 and large from .25.
        """
        with self._lock:
            reference, live = self._reference, self._window[: self.images].astype(np.float64)
        if reference is None or len(live) < self._least:
            return float("nan")
        return reference.psi(live)


class _Reference:
    """The bins of a reference, and the shares of its images in them."""

    def __init__(self, reference: LossReference, positive: bool) -> None:
        self._positive = positive
        quantiles = self._compared(np.array(reference.quantiles, np.float64))
        self._edges = _bin_edges(quantiles)
        # Linear between neighbouring percentiles; where several are equal, the last one's.
        below = np.interp(self._edges, quantiles, np.linspace(0, 1, len(quantiles)))
        self._shares = _smoothed(np.diff(below, prepend=0, append=1) * reference.images)

    def _compared(self, losses: Values) -> Values:
        return np.log(losses.clip(_SMALLEST)) if self._positive else losses

    def psi(self, live: Values) -> float:
        """Return Σ (p - q) ln(p / q) over bins, p and q their shares; ``live`` is [N].

        See B. Yurdakul and J. Naranjo, "Statistical properties of the population stability index",
        Journal of Risk Model Validation 14, 2020: without drift, with B bins, N live and M
        reference images it is about (1/N + 1/M) χ²(B - 1).
        """
        live = np.sort(self._compared(live))
        ends = np.searchsorted(live, self._edges, side="right")
        shares = _smoothed(np.diff(ends, prepend=0, append=len(live)).astype(np.float64))
        return float(((shares - self._shares) * np.log(shares / self._shares)).sum())


def _bin_edges(quantiles: Values) -> Values:
    """Return the deciles; a loss that makes up two of them gets a bin of its own."""
    near = _ROUNDING * float(np.abs(quantiles).max()) or 1e-9
    deciles = quantiles[10:100:10]
    shared = np.unique(deciles[1:][np.diff(deciles) <= near])
    edges = np.concatenate([deciles, shared - near, shared + near])
    inside = (np.abs(edges[:, None] - shared[None, :]) < 0.99 * near).any(axis=1)
    return np.unique(edges[~inside])


def _smoothed(counts: Values) -> Values:
    shares: Values = (counts + _PRIOR) / (counts.sum() + _PRIOR * len(counts))
    return shares
