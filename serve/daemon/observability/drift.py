"""Does what is scored look to the model as the pool of its export did?

The last live predicted losses, of requests and of jobs, are held against the quantiles in the
artifact's manifest. Two figures, each known by its own name: the population stability index over
the reference's deciles, in which a shift anywhere counts, and the Kolmogorov-Smirnov distance, the
largest difference of the two distribution functions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lloss.statistics.loss_distribution import LossReference

WINDOW = 4096
"""Live images that are looked at, the latest ones: 16 kB."""

LEAST = 500
"""Live images below which nothing is said: chance alone would move both figures too far."""

_ROUNDING = 1e-3
"""Of the largest loss: what the same image's loss may differ by between two providers. Below it no
difference is drift, and a loss that many images share stays the same one."""

_TINY = 1e-9

_PRIOR = 0.5
"""Added to each bin's count, so that an empty one is a small share and no infinity: the prior of
H. Jeffreys, "An invariant form for the prior probability in estimation problems", 1946."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """How far live traffic is from the reference.

    Attributes:
        psi: population stability index, from 0; by custom a shift is moderate from .1, and large
            from .25. NaN where nothing can be said.
        ks: Kolmogorov-Smirnov distance, 0 to 1; NaN likewise.
        images: live ones in the window.
    """

    psi: float
    ks: float
    images: int


class Drift(Collector):
    """A window of live predicted losses beside a reference, and its gauges.

    ``lloss_drift_psi``, ``lloss_drift_ks`` (NaN while nothing can be said),
    ``lloss_drift_window_images`` and ``lloss_drift_reference_images`` (0 without a reference).
    Any thread may use it.
    """

    def __init__(self, window: int = WINDOW, least: int = LEAST) -> None:
        self._ring = np.empty(window, np.float32)
        self._least = least
        self._seen = 0
        self._lock = threading.Lock()
        self._reference: _Reference | None = None
        self._model = ""

    def against(self, reference: LossReference | None, model: str = "") -> None:
        """Measure losses of this model alone, with a window that is empty."""
        prepared = _Reference(reference) if reference else None
        with self._lock:
            self._reference, self._model, self._seen = prepared, model, 0

    def add(self, losses: NDArray[np.float32], model: str = "") -> None:
        """Take live losses into the window.

        Args:
            losses: float32 [N]; what is not finite is left out.
            model: that predicted them. Those of another than is measured are left out: a model that
                was exchanged ends what it began when its successor serves already.
        """
        finite = losses[np.isfinite(losses)]
        size = len(self._ring)
        with self._lock:
            if model != self._model:
                return
            latest = finite[-size:]
            start = (self._seen + len(finite) - len(latest)) % size
            first = latest[: size - start]
            self._ring[start : start + len(first)] = first
            self._ring[: len(latest) - len(first)] = latest[len(first) :]
            self._seen += len(finite)

    @property
    def reference_images(self) -> int:
        """Images of the reference; 0 where there is none."""
        reference = self._reference
        return reference.images if reference else 0

    def measure(self) -> Measured:
        """Compare. About a third of a millisecond for a full window."""
        with self._lock:
            reference = self._reference
            live = self._ring[: min(self._seen, len(self._ring))].astype(np.float64)
        if reference is None or len(live) < self._least:
            return Measured(float("nan"), float("nan"), len(live))
        live.sort()
        return Measured(reference.psi(live), reference.ks(live), len(live))

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        found = self.measure()
        for name, help, value in (
            ("psi", "Population stability index of live predicted losses.", found.psi),
            ("ks", "Kolmogorov-Smirnov distance of live predicted losses.", found.ks),
            ("window_images", "Live images that drift is measured on.", found.images),
            ("reference_images", "Images of the reference.", self.reference_images),
        ):
            yield GaugeMetricFamily(f"lloss_drift_{name}", help, value)

    def describe(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.CollectorRegistry``."""
        return self.collect()


class _Reference:
    """A reference, ready to be compared with.

    Its distribution function is a line between neighbouring percentiles, and jumps at losses that
    stand there more than once.
    """

    def __init__(self, reference: LossReference) -> None:
        self.images = reference.images
        self._at = np.array(reference.quantiles, np.float64)
        self._near = _ROUNDING * float(np.abs(self._at).max()) or _TINY
        self._edges = self._cuts()
        shares = np.diff(self._below_or_at(self._edges), prepend=0.0, append=1.0)
        self._shares = _smoothed(shares * self.images)

    def psi(self, live: Values) -> float:
        """Σ (p - q) ln(p / q) over bins, p and q their shares, as in credit scoring.

        See B. Yurdakul and J. Naranjo, "Statistical properties of the population stability index",
        Journal of Risk Model Validation 14, 2020: of one distribution, with B bins, N live and M
        reference images it is about (1/N + 1/M) χ²(B - 1).

        Args:
            live: ascending [N].
        """
        ends = np.searchsorted(live, self._edges, side="right")
        shares = _smoothed(np.diff(ends, prepend=0, append=len(live)).astype(np.float64))
        return float(((shares - self._shares) * np.log(shares / self._shares)).sum())

    def ks(self, live: Values) -> float:
        """The largest difference of the distribution functions, but for rounding.

        Both functions only ascend and that of ``live`` only at its own values, so that it is found
        there, just before or at one of them.

        Args:
            live: ascending [N].
        """
        at = np.searchsorted(live, live, side="right") / len(live)
        before = np.searchsorted(live, live, side="left") / len(live)
        more = at - self._below_or_at(live + self._near)
        less = self._below(live - self._near) - before
        return float(max(more.max(), less.max(), 0.0))

    def _cuts(self) -> Values:
        """The deciles; a loss that makes up two of them gets a bin of its own."""
        deciles = self._at[10:100:10]
        twice = np.unique(deciles[1:][np.diff(deciles) <= self._near])
        cuts = np.concatenate([deciles, twice - self._near, twice + self._near])
        inside = (np.abs(cuts[:, None] - twice[None, :]) < 0.99 * self._near).any(axis=1)
        return np.unique(cuts[~inside])

    def _below_or_at(self, values: Values) -> Values:
        """Share of the reference at or below each value."""
        return self._share(values, np.searchsorted(self._at, values, side="right") - 1)

    def _below(self, values: Values) -> Values:
        """Share of the reference below each value."""
        return self._share(values, np.searchsorted(self._at, values, side="left") - 1)

    def _share(self, values: Values, place: NDArray[np.intp]) -> Values:
        """On the line that begins at percentile ``place``; -1 is before all, the last behind."""
        last = len(self._at) - 1
        inner = np.clip(place, 0, last - 1)
        low, width = self._at[inner], np.diff(self._at)[inner]
        along = np.divide(values - low, width, out=np.zeros(len(values)), where=width > 0)
        shares: Values = np.where(place < 0, 0.0, np.where(place >= last, last, inner + along))
        return shares / last


def _smoothed(counts: Values) -> Values:
    shares: Values = (counts + _PRIOR) / (counts.sum() + _PRIOR * len(counts))
    return shares
