"""Prometheus metrics of the daemon, in addition to those of its scorers.

Names are ``lloss_…`` in base units, and ``process_…`` as of every Prometheus client. Label values
are few and fixed: never an id, a path, a pool or a host.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from lloss.serve.daemon.observability.drift import Drift
from lloss.serve.daemon.settings import Limits
from lloss.serve.scoring.telemetry import Telemetry
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

import lloss
from lloss.manifest import Manifest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

log = logging.getLogger(__name__)


class DaemonMetrics:
    """Metrics of requests, queue, jobs, selections and drift, in one registry with the scorers'.

    One ``telemetry`` is for all scorers of a daemon, so that a reload resets no counter.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.telemetry = Telemetry()
        self.registry: CollectorRegistry = self.telemetry.registry
        of: Any = {"registry": self.registry}
        self.in_flight = Gauge("lloss_requests_in_flight", "Requests being answered.", **of)
        self._requests = Counter("lloss_requests", "Answered requests.", ["route", "code"], **of)
        self._seconds = Histogram(
            "lloss_request_duration_seconds",
            "Seconds from the head of a request to the end of its reply.",
            ["route"],
            buckets=_BUCKETS,
            **of,
        )
        self.waited = Histogram(
            "lloss_wait_duration_seconds",
            "Seconds from a request's arrival in the queue to its first batch. Requests dropped "
            "before are in lloss_refused_images only.",
            buckets=_BUCKETS,
            **of,
        ).observe
        self.queued = Gauge("lloss_queue_images", "Images waiting for the engine.", **of).set
        limit = Gauge("lloss_queue_limit_images", "Images that may wait for the engine.", **of)
        limit.set((limits or Limits()).queue_images)
        self._served = Counter("lloss_served_images", "Images of requests that were scored.", **of)
        self.selected = Counter(
            "lloss_selected_images", "Images handed out for labeling.", **of
        ).inc
        self.labeled = Counter("lloss_labeled_images", "Images marked labeled.", **of).inc
        self.refused = self._by(
            "lloss_refused_images",
            "Images of requests that were not scored.",
            reason=("queue_full", "deadline", "cancelled", "draining"),
        )
        self.job = self._by(
            "lloss_jobs", "Jobs that ended.", outcome=("done", "failed", "cancelled")
        )
        self._reloaded = self._by(
            "lloss_reloads", "Reloads of the model.", outcome=("swapped", "unchanged", "refused")
        )
        self._reload_ok = Gauge(
            "lloss_last_reload_successful", "0 when the last reload was refused.", **of
        )
        self._reload_ok.set(1)
        self.drift = Drift()
        self.gauge("lloss_drift_psi", "Population stability index of live losses.", self.drift.psi)
        self.gauge(
            "lloss_drift_window_images",
            "Live images that drift is measured on.",
            lambda: self.drift.images,
        )
        ProcessCollector(**of)
        Info("lloss_build", "Versions that run.", **of).info(
            {
                "version": lloss.__version__,
                "python": platform.python_version(),
                "onnxruntime": str(onnxruntime.__version__),
            }
        )

    def _by(self, name: str, help: str, **label: tuple[str, ...]) -> Callable[..., None]:
        """Return a function that counts ``(value, count=1)`` of a label.

        All values are there from the start, at 0: Prometheus sees no rise in a new series.
        """
        ((label_name, values),) = label.items()
        counter = Counter(name, help, [label_name], registry=self.registry)
        for value in values:
            counter.labels(value)
        return lambda value, count=1: counter.labels(value).inc(count)

    def request(self, route: str, code: int, seconds: float) -> None:
        """Count a request by its route's pattern; code 499 if the client left before the reply."""
        self._requests.labels(route, code).inc()
        self._seconds.labels(route).observe(seconds)

    def served(self, losses: NDArray[np.float32], sha256: str) -> None:
        """Count predicted losses of requests, float32 [N], by the model with this sha256.

        Jobs add theirs to :attr:`drift` only.
        """
        self._served.inc(len(losses))
        self.drift.add(losses, sha256)

    def model(self, manifest: Manifest, sha256: str, device: str) -> None:
        """Name the model that serves from now on; drift starts again against its reference."""
        self.telemetry.model(sha256, device, manifest.precision)
        self.drift.against(manifest.reference, sha256, positive=manifest.unit is not None)

    def reloaded(self, outcome: str) -> None:
        """Count a reload: ``swapped``, ``unchanged`` or ``refused``."""
        self._reloaded(outcome)
        self._reload_ok.set(outcome != "refused")

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read at every scrape; NaN, and a log line, where ``read`` raises."""

        def value() -> float:
            try:
                return float(read())
            except Exception:
                log.exception("metric %s cannot be read", name)
                return float("nan")

        Gauge(name, help, registry=self.registry).set_function(value)

    def exposition(self) -> bytes:
        """Return the body of ``/metrics``. Blocks for some milliseconds."""
        return generate_latest(self.registry)
