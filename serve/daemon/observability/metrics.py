"""What the daemon tells of itself, beside the scorer's own telemetry.

Names are ``lloss_…`` in base units; ``process_…`` are those that every Prometheus client has. A
label's values are few and known beforehand: never an id, a path, a pool or a host.
"""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from lloss.serve.daemon.observability.drift import Drift
from lloss.serve.daemon.settings import Limits
from lloss.serve.scoring.telemetry import Telemetry
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import exposition as plain
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

import lloss
from lloss.manifest import Manifest

REFUSED = ("queue_full", "deadline", "cancelled", "draining")
RELOADED = ("swapped", "unchanged", "refused")
ENDED = ("done", "failed", "cancelled")
LOGINS = ("accepted", "refused", "limited")
"""Values of the labels that are there from the start, at 0: a rise from nothing is no rise."""

OTHER = "other"
"""What the value of a label becomes when there are too many."""

_MOST = 200
"""Children of a metric. There are some forty routes of a few codes each; were a path ever given in
the place of its pattern, memory would not grow with it."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_PLAIN = "text/plain; version=0.0.4; charset=utf-8"

_STATUS = Path("/proc/self/status")

log = logging.getLogger(__name__)


class DaemonMetrics:
    """Metrics of requests, queue, jobs, selections and drift, in one registry with the scorer's.

    Args:
        limits: of the daemon: ``lloss_queue_limit_images`` tells its queue's.

    Attributes:
        telemetry: that every scorer of this daemon counts in, so that a reload loses no count.
            Scorers do not name themselves there: :meth:`model` does.
        registry: to serve; that of ``telemetry``.
        drift: of predicted losses, of requests and of jobs.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._shared = _SharedTelemetry()
        self.telemetry: Telemetry = self._shared
        self.registry: CollectorRegistry = self.telemetry.registry
        self._count_requests()
        self._count_images((limits or Limits()).queue_images)
        self._count_changes()
        self.drift = Drift()
        self.registry.register(self.drift)
        ProcessCollector(registry=self.registry)
        self.gauge("process_threads", "Number of OS threads in the process.", _threads)
        build = _Info(self.registry, "lloss_build_info", "What runs.")
        build.labels = {
            "version": lloss.__version__,
            "python": platform.python_version(),
            "onnxruntime": str(onnxruntime.__version__),
        }

    def _count_requests(self) -> None:
        of = self.registry
        self._in_flight = Gauge(
            "lloss_requests_in_flight", "Requests that are being answered.", registry=of
        )
        self._requests = _Children(
            Counter("lloss_requests", "Answered requests.", ["route", "code"], registry=of)
        )
        self._seconds = _Children(
            Histogram(
                "lloss_request_duration_seconds",
                "Seconds from the head of a request to the end of its answer.",
                ["route"],
                buckets=_SECONDS,
                registry=of,
            )
        )

    def _count_images(self, most: int) -> None:
        """Images of requests: those that wait, ``most`` of them, and what becomes of them."""
        of = self.registry
        self._refused = _counter(
            of, "lloss_refused_images", "Images of requests not scored.", "reason", REFUSED
        )
        self._queue = Gauge(
            "lloss_queue_images", "Images of requests that wait for the engine.", registry=of
        )
        Gauge("lloss_queue_limit_images", "Images that may wait for the engine.", registry=of).set(
            most
        )
        self._waits = Histogram(
            "lloss_wait_duration_seconds",
            "Seconds from a request's arrival in the queue until a lane took its first images. One "
            "that is dropped before is in lloss_refused_images alone.",
            buckets=_SECONDS,
            registry=of,
        )
        self._served = Counter(
            "lloss_served_images", "Images of requests that were scored.", registry=of
        )

    def _count_changes(self) -> None:
        """Jobs, reloads and labels."""
        of = self.registry
        self._logins = _counter(
            of, "lloss_logins", "Attempts to log in by what came of them.", "outcome", LOGINS
        )
        self._jobs = _counter(of, "lloss_jobs", "Jobs that ended.", "outcome", ENDED)
        self._reloads = _counter(
            of, "lloss_reloads", "Reloads of the model by what came of them.", "outcome", RELOADED
        )
        self._reload_ok = Gauge(
            "lloss_last_reload_successful", "0 when the last reload was refused.", registry=of
        )
        self._reload_ok.set(1)
        self._selected = Counter(
            "lloss_selected_images", "Images handed out for labeling.", registry=of
        )
        self._labeled = Counter("lloss_labeled_images", "Images marked labeled.", registry=of)

    def arrived(self) -> None:
        """Count a request as being answered; :meth:`left` must follow."""
        self._in_flight.inc()

    def left(self) -> None:
        """Count it as answered, or its client as gone."""
        self._in_flight.dec()

    def request(self, route: str, code: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            route: the path's pattern, never the path; one name for all that match none.
            code: of the answer; 499 where the client went before it.
            seconds: that it took.
        """
        self._requests[route, code].inc()
        self._seconds[route,].observe(seconds)

    def refused(self, reason: str, images: int = 1) -> None:
        """Count images refused or dropped: one of :data:`REFUSED`, or another fixed word."""
        self._refused[reason,].inc(images)

    def queued(self, images: int) -> None:
        """Tell how many images of requests wait for the engine."""
        self._queue.set(images)

    def waited(self, seconds: float) -> None:
        """Count how long a request was in the queue before anything of it was begun."""
        self._waits.observe(seconds)

    def served(self, losses: NDArray[np.float32], sha256: str) -> None:
        """Count predicted losses of requests, float32 [N]; jobs' come to :attr:`drift` alone.

        Args:
            losses: they.
            sha256: of the model that predicted them.
        """
        self._served.inc(len(losses))
        self.drift.add(losses, sha256)

    def model(self, manifest: Manifest, sha256: str, device: str) -> None:
        """Name the model that serves from now on; drift is measured against it anew."""
        self._shared.serves(sha256, device, manifest.precision)
        self.drift.against(manifest.reference, sha256)

    def reloaded(self, outcome: str) -> None:
        """Count a reload: ``swapped``, ``unchanged`` or ``refused``."""
        self._reloads[outcome,].inc()
        self._reload_ok.set(outcome != "refused")

    def login(self, outcome: str) -> None:
        """Count an attempt to log in: ``accepted``, ``refused`` or ``limited``."""
        self._logins[outcome,].inc()

    def job(self, outcome: str) -> None:
        """Count a job that ended: ``done``, ``failed`` or ``cancelled``."""
        self._jobs[outcome,].inc()

    def selected(self, images: int) -> None:
        """Count images handed out for labeling."""
        self._selected.inc(images)

    def labeled(self, images: int) -> None:
        """Count images marked labeled."""
        self._labeled.inc(images)

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Have a value read whenever the metrics are.

        Args:
            name: of the metric.
            help: what it is, a sentence.
            read: gives the value, quickly. When it fails, the metric is absent that time, and the
                log says why; NaN is served as it is.
        """
        self.registry.register(_Read(name, help, read))

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The body of ``/metrics`` and its content type.

        Args:
            accept: the request's header: who asks for OpenMetrics gets that. Blocks for some
                milliseconds.
        """
        # The client library's own choice fails on versions that are no numbers, a client's header.
        encode: Callable[[CollectorRegistry], bytes] = plain.generate_latest
        content_type = _PLAIN
        if "application/openmetrics-text" in accept.lower():
            encode, content_type = openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST
        return encode(self.registry), content_type


def _counter(
    registry: CollectorRegistry, name: str, help: str, label: str, known: tuple[str, ...]
) -> _Children:
    children = _Children(Counter(name, help, [label], registry=registry))
    for value in known:
        children[value,]
    return children


class _Children(dict[tuple[str | int, ...], Any]):
    """A metric's children by the values of its labels, each looked up once."""

    def __init__(self, metric: Counter | Histogram) -> None:
        super().__init__()
        self.metric = metric

    def __missing__(self, values: tuple[str | int, ...]) -> Any:
        if len(self) >= _MOST:
            return self.metric.labels(*(OTHER for _ in values))
        child = self[values] = self.metric.labels(*values)
        return child


class _SharedTelemetry(Telemetry):
    """That of several scorers, of which one serves and others do jobs that were begun before."""

    def __init__(self) -> None:
        super().__init__()
        self.registry.unregister(self._model)
        self._serving = _Info(
            self.registry, "lloss_model_info", "The artifact that serves, and what runs it."
        )
        for outcome in ("scored", "skipped"):
            self._images.labels(outcome)

    def model(self, sha256: str, device: str, precision: str) -> None:
        """Do nothing: a scorer does not know whether it is the one that serves."""

    def serves(self, sha256: str, device: str, precision: str) -> None:
        """Name the one that does, in the place of the one before."""
        provider = device.partition(":")[0]
        self._serving.labels = {
            "sha256": sha256,
            "provider": provider,
            "device": device,
            "precision": precision,
        }


class _Info(Collector):
    """A gauge of 1 with one series at any time, or none before there are labels."""

    def __init__(self, registry: CollectorRegistry, name: str, help: str) -> None:
        self.name, self.help = name, help
        self.labels: Mapping[str, str] = {}
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.CollectorRegistry``."""
        yield GaugeMetricFamily(self.name, self.help)

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        if labels := self.labels:
            family = GaugeMetricFamily(self.name, self.help, labels=list(labels))
            family.add_metric(list(labels.values()), 1)
            yield family


class _Read(Collector):
    """A gauge whose value is asked for."""

    def __init__(self, name: str, help: str, read: Callable[[], float]) -> None:
        self.name, self.help, self.read = name, help, read

    def describe(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.CollectorRegistry``."""
        yield GaugeMetricFamily(self.name, self.help)

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        try:
            value = float(self.read())
        except Exception:  # one value that cannot be had must not take the others along
            log.exception("metric %s cannot be read", self.name)
            return
        yield GaugeMetricFamily(self.name, self.help, value)


def _threads() -> int:
    """Of the runtime too, where the system tells."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return threading.active_count()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))
