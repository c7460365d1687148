"""What a scorer tells of itself: Prometheus metrics, and where the time of a run went.

Everything is counted a batch at a time; nothing here costs time for each image.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

STAGES = ("read", "decode", "infer", "write")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_LOSSES = (-8, -4, -2, -1, -0.5, 0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)


class Telemetry:
    """Counters and histograms of one scorer, in a registry of their own.

    Attributes:
        registry: to serve or push; holds ``lloss_images_total{outcome}``,
            ``lloss_{read,decode,infer,write,queue}_duration_seconds`` (a batch each),
            ``lloss_batch_size``, ``lloss_queue_size``, ``lloss_predicted_loss``,
            ``lloss_batch_halvings_total`` and ``lloss_model_info``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._images = Counter(
            "lloss_images", "Images by what became of them.", ["outcome"], registry=self.registry
        )
        self._seconds = {
            stage: Histogram(
                f"lloss_{stage}_duration_seconds",
                f"Seconds that a batch spent in {stage}.",
                buckets=_SECONDS,
                registry=self.registry,
            )
            for stage in (*STAGES, "queue")
        }
        self._batch = Histogram(
            "lloss_batch_size", "Images a run.", buckets=_COUNTS, registry=self.registry
        )
        self._queue = Gauge(
            "lloss_queue_size", "Batches begun and not yet handed over.", registry=self.registry
        )
        self._model = Gauge(
            "lloss_model_info",
            "The artifact that scores, and what runs it.",
            ["sha256", "provider", "device", "precision"],
            registry=self.registry,
        )
        self._halvings = Counter(
            "lloss_batch_halvings",
            "Times that a GPU's memory did not hold a run, and runs were halved.",
            registry=self.registry,
        )
        self._losses = _LossHistogram()
        self.registry.register(self._losses)
        self._lock = threading.Lock()
        self._busy = dict.fromkeys((*STAGES, "queue"), 0.0)
        self._scored = self._skipped = 0
        self._named: tuple[str, str, str, str] | None = None

    def model(self, sha256: str, device: str, precision: str) -> None:
        """Name what runs, and what ran before no more.

        Args:
            sha256: of the artifact.
            device: the provider, with the GPU's number where it has one: ``cuda:1``.
            precision: of the artifact.
        """
        with self._lock:
            named = (sha256, device.partition(":")[0], device, precision)
            self._model.labels(*named).set(1)
            if self._named and self._named != named:
                self._model.remove(*self._named)
            self._named = named

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the seconds of the block as a batch's in ``stage``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.spent(stage, time.perf_counter() - begun)

    def spent(self, stage: str, seconds: float) -> None:
        """Count seconds of a batch in one of :data:`STAGES`, or in the ``queue`` between them."""
        self._seconds[stage].observe(seconds)
        with self._lock:
            self._busy[stage] += seconds

    def ran(self, losses: NDArray[np.float32], skipped: int) -> None:
        """Count a batch that was run: its predicted losses, float32 [N], and what was skipped."""
        if len(losses):
            self._batch.observe(len(losses))
            self._images.labels("scored").inc(len(losses))
            self._losses.add(losses)
        if skipped:
            self._images.labels("skipped").inc(skipped)
        with self._lock:
            self._scored += len(losses)
            self._skipped += skipped

    def halved(self) -> None:
        """Count that a GPU's memory did not hold a run."""
        self._halvings.inc()

    def queued(self, batches: int) -> None:
        """Tell how many batches are under way."""
        self._queue.set(batches)

    def spent_so_far(self) -> dict[str, float]:
        """Seconds of all threads together in each stage."""
        with self._lock:
            return dict(self._busy)

    @property
    def images(self) -> int:
        """Images seen so far, scored or skipped."""
        with self._lock:
            return self._scored + self._skipped


class _LossHistogram(Collector):
    """``lloss_predicted_loss``: prometheus-client's own observes one value a call."""

    def __init__(self) -> None:
        self._edges = np.array(_LOSSES, np.float64)
        self._counts = np.zeros(len(_LOSSES) + 1, np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, losses: NDArray[np.float32]) -> None:
        """Count them; NaN is in no bucket."""
        values = losses[np.isfinite(losses)].astype(np.float64)
        places = np.searchsorted(self._edges, values, side="left")
        counts = np.bincount(places, minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        with self._lock:
            summed, total = np.cumsum(self._counts), self._sum
        names = [*(str(float(edge)) for edge in _LOSSES), "+Inf"]
        buckets = [(name, float(count)) for name, count in zip(names, summed)]
        yield HistogramMetricFamily(
            "lloss_predicted_loss", "Predicted loss of scored images.", buckets, total
        )
