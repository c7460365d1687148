"""Prometheus metrics of scorers, and a server for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from lloss.errors import SettingsError

STAGES = ("read", "decode", "infer", "write")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_LOSSES = (-8, -4, -2, -1, -0.5, 0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)

_LOOPBACK = "127.0.0.1"
"""The only address that serves metrics: the server has no access control."""


class Telemetry:
    """Counters and histograms of one or several scorers, in a registry of their own.

    Attributes:
        registry: holds ``lloss_images_total{outcome}``,
            ``lloss_{read,decode,infer,write,queue}_duration_seconds`` (of one batch each),
            ``lloss_batch_size``, ``lloss_queue_size``, ``lloss_predicted_loss``,
            ``lloss_batch_halvings_total`` and ``lloss_model_info``.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._images = Counter(
            "lloss_images", "Images by what became of them.", ["outcome"], registry=registry
        )
        self._seconds = {
            stage: Histogram(
                f"lloss_{stage}_duration_seconds",
                f"Seconds that a batch spent in {stage}.",
                buckets=_SECONDS,
                registry=registry,
            )
            for stage in (*STAGES, "queue")
        }
        self._batch = Histogram(
            "lloss_batch_size", "Images per run.", buckets=_COUNTS, registry=registry
        )
        self._queue = Gauge(
            "lloss_queue_size", "Batches begun and not scored yet.", registry=registry
        )
        self._halvings = Counter(
            "lloss_batch_halvings",
            "Times that a GPU's memory did not hold a run, and runs were halved.",
            registry=registry,
        )
        for outcome in ("scored", "skipped"):
            self._images.labels(outcome)
        self._model = Gauge(
            "lloss_model_info",
            "The model that scores, and what runs it.",
            ["sha256", "provider", "device", "precision"],
            registry=registry,
        )
        self._losses = Histogram(
            "lloss_predicted_loss",
            "Predicted loss of scored images.",
            buckets=_LOSSES,
            registry=registry,
        )

    def model(self, sha256: str, device: str, precision: str) -> None:
        """Name the model that runs, and its device (``cuda:1``), in place of the one before."""
        self._model.clear()
        self._model.labels(sha256, device.partition(":")[0], device, precision).set(1)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the seconds of the block as those of a batch in ``stage``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.spent(stage, time.perf_counter() - begun)

    def spent(self, stage: str, seconds: float) -> None:
        """Count seconds of a batch in one of :data:`STAGES`, or in the ``queue`` between them."""
        self._seconds[stage].observe(seconds)

    def ran(self, losses: NDArray[np.float32], skipped: int) -> None:
        """Count a batch: its predicted losses, float32 [N], and the number of skipped images."""
        if len(losses):
            self._batch.observe(len(losses))
            self._images.labels("scored").inc(len(losses))
            for loss in losses[np.isfinite(losses)].tolist():  # about a microsecond each
                self._losses.observe(loss)
        if skipped:
            self._images.labels("skipped").inc(skipped)

    def halved(self) -> None:
        """Count that a GPU's memory did not hold a run."""
        self._halvings.inc()

    def queued(self, batches: int) -> None:
        """Add to the number of batches begun and not scored yet."""
        self._queue.inc(batches)

    def total_seconds(self, stage: str) -> float:
        """Seconds that all threads together have spent in a stage."""
        return self.registry.get_sample_value(f"lloss_{stage}_duration_seconds_sum") or 0.0

    @property
    def images(self) -> int:
        """Number of images so far, scored or skipped."""
        name = "lloss_images_total"
        outcomes = ({"outcome": outcome} for outcome in ("scored", "skipped"))
        return int(sum(self.registry.get_sample_value(name, label) or 0 for label in outcomes))


@contextmanager
def serve_metrics(telemetry: Telemetry, port: int | None) -> Iterator[None]:
    """Serve ``/metrics`` on the loopback interface while the block runs; without a port, nothing.

    Raises:
        SettingsError: the port is taken.
    """
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, _LOOPBACK, telemetry.registry)
    except OSError as error:
        raise SettingsError(
            f"--metrics-port {port}: {error.strerror or error}; choose another port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
