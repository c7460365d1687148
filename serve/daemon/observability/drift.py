"""Does live traffic look to the model as the pool of its export did?

The latest predicted losses, of requests and of jobs, are compared with the quantiles in the model's
manifest by two figures: the population stability index over the reference's deciles, which any
shift changes, and the Kolmogorov-Smirnov distance, the largest difference of the two distribution
functions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lloss.statistics.loss_distribution import LossReference

WINDOW = 4096
"""Latest live images that are compared."""

LEAST = 500
"""Live images below which nothing is measured: chance alone would move both figures too far."""

_ROUNDING = 1e-3
"""Share of the largest loss by which two providers' losses of one image may differ. No smaller
difference is drift, and losses that many images share count as the same one."""

_PRIOR = 0.5
"""Images added to each bin, so that an empty one has a small share: the prior of H. Jeffreys, "An
invariant form for the prior probability in estimation problems", 1946."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """How far live traffic is from the reference.

    Attributes:
        psi: population stability index, from 0; by custom a shift is moderate from .1 and large
            from .25. NaN where nothing can be measured.
        ks: Kolmogorov-Smirnov distance, 0 to 1, or NaN.
        images: live ones in the window.
    """

    psi: float
    ks: float
    images: int


class Drift(Collector):
    """A window of live predicted losses beside a reference, and its gauges.

    ``lloss_drift_psi`` and ``lloss_drift_ks`` (NaN while nothing can be measured),
    ``lloss_drift_window_images`` and ``lloss_drift_reference_images`` (0 without a reference).
    Thread-safe.
    """

    def __init__(self, window: int = WINDOW, least: int = LEAST) -> None:
        self._window = np.empty(window, np.float32)
        self._least = least
        self._seen = 0
        self._lock = threading.Lock()
        self._reference: _Reference | None = None
        self._model = ""

    def against(self, reference: LossReference | None, model: str = "") -> None:
        """Empty the window, then compare the losses of this model only."""
        prepared = _Reference(reference) if reference else None
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
    def reference_images(self) -> int:
        """Images of the reference; 0 without one."""
        return self._reference.images if self._reference else 0

    def measure(self) -> Measured:
        """Compare; a full window takes about a third of a millisecond."""
        with self._lock:
            reference = self._reference
            live = self._window[: min(self._seen, len(self._window))].astype(np.float64)
        if reference is None or len(live) < self._least:
            return Measured(float("nan"), float("nan"), len(live))
        live.sort()
        return Measured(reference.psi(live), reference.ks(live), len(live))

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        now = self.measure()
        for name, help, value in (
            ("psi", "Population stability index of live predicted losses.", now.psi),
            ("ks", "Kolmogorov-Smirnov distance of live predicted losses.", now.ks),
            ("window_images", "Live images that drift is measured on.", now.images),
            ("reference_images", "Images of the reference.", self.reference_images),
        ):
            yield GaugeMetricFamily(f"lloss_drift_{name}", help, value)


class _Reference:
    """A reference, ready to be compared with.

    Its distribution function is linear between neighbouring percentiles, and jumps at losses that
    occur there more than once.
    """

    def __init__(self, reference: LossReference) -> None:
        self.images = reference.images
        self._quantiles = np.array(reference.quantiles, np.float64)
        self._near = _ROUNDING * float(np.abs(self._quantiles).max()) or 1e-9
        self._edges = self._bin_edges()
        shares = np.diff(self._share(self._edges, "right"), prepend=0.0, append=1.0)
        self._shares = _smoothed(shares * self.images)

    def psi(self, live: Values) -> float:
        """Return Σ (p - q) ln(p / q) over bins, p and q their shares.

        See B. Yurdakul and J. Naranjo, "Statistical properties of the population stability index",
        Journal of Risk Model Validation 14, 2020: without drift, with B bins, N live and M
        reference images it is about (1/N + 1/M) χ²(B - 1).

        Args:
            live: ascending [N].
        """
        ends = np.searchsorted(live, self._edges, side="right")
        shares = _smoothed(np.diff(ends, prepend=0, append=len(live)).astype(np.float64))
        return float(((shares - self._shares) * np.log(shares / self._shares)).sum())

    def ks(self, live: Values) -> float:
        """Return the largest difference of the distribution functions beyond rounding.

        It occurs just before or at a live value: both functions ascend, and that of ``live`` only
        there.

        Args:
            live: ascending [N].
        """
        at = np.searchsorted(live, live, side="right") / len(live)
        before = np.searchsorted(live, live, side="left") / len(live)
        more = at - self._share(live + self._near, "right")
        less = self._share(live - self._near, "left") - before
        return float(max(more.max(), less.max(), 0.0))

    def _bin_edges(self) -> Values:
        """Return the deciles; a loss that makes up two of them gets a bin of its own."""
        deciles = self._quantiles[10:100:10]
        shared = np.unique(deciles[1:][np.diff(deciles) <= self._near])
        edges = np.concatenate([deciles, shared - self._near, shared + self._near])
        inside = (np.abs(edges[:, None] - shared[None, :]) < 0.99 * self._near).any(axis=1)
        return np.unique(edges[~inside])

    def _share(self, values: Values, side: Literal["left", "right"]) -> Values:
        """Return the share of the reference at or below ("right") or below ("left") each value."""
        place = np.searchsorted(self._quantiles, values, side=side) - 1
        last = len(self._quantiles) - 1
        inner = np.clip(place, 0, last - 1)
        low, width = self._quantiles[inner], np.diff(self._quantiles)[inner]
        along = np.divide(values - low, width, out=np.zeros(len(values)), where=width > 0)
        shares: Values = np.where(place < 0, 0.0, np.where(place >= last, last, inner + along))
        return shares / last


def _smoothed(counts: Values) -> Values:
    shares: Values = (counts + _PRIOR) / (counts.sum() + _PRIOR * len(counts))
    return shares
