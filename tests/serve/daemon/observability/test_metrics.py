"""What the daemon counts, as a scraper reads it."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.settings import Limits

from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest
from lloss.statistics.loss_distribution import LossReference


@pytest.fixture
def metrics() -> DaemonMetrics:
    return DaemonMetrics(Limits(queue_images=64))


def value(metrics: DaemonMetrics, name: str, **labels: str) -> Any:
    return metrics.registry.get_sample_value(name, labels)


def manifest(reference: LossReference | None = None) -> Manifest:
    return Manifest(
        task="classification",
        model="m",
        classes=("a", "b"),
        image=ImageSpec(8, 8),
        mean=(0.5,),
        std=(0.5,),
        outputs={"loss": ()},
        precision="fp16",
        reference=reference,
    )


def test_requests_are_counted_by_route_and_code(metrics: DaemonMetrics) -> None:
    for code, seconds in ((200, 0.02), (200, 0.2), (429, 0.002)):
        metrics.request("/v1/score", code, seconds)
    metrics.request("/metrics", 200, 0.01)
    count = "lloss_requests_total"
    assert value(metrics, count, route="/v1/score", code="200") == 2
    assert value(metrics, count, route="/v1/score", code="429") == 1
    name = "lloss_request_duration_seconds"
    assert value(metrics, f"{name}_sum", route="/v1/score") == pytest.approx(0.222)
    assert value(metrics, f"{name}_bucket", route="/v1/score", le="0.025") == 2


def test_series_that_alerts_need_exist_from_the_start(metrics: DaemonMetrics) -> None:
    for name, label, values in (
        ("lloss_refused_images_total", "reason", "queue_full deadline cancelled draining"),
        ("lloss_jobs_total", "outcome", "done failed cancelled"),
        ("lloss_reloads_total", "outcome", "swapped unchanged refused"),
        ("lloss_images_total", "outcome", "scored skipped"),
    ):
        for each in values.split():
            assert value(metrics, name, **{label: each}) == 0, (name, each)


def test_images_jobs_and_labels_are_counted(metrics: DaemonMetrics) -> None:
    metrics.refused("queue_full", 32)
    metrics.refused("deadline")
    metrics.served(np.array([0.1, 0.2, np.nan], np.float32), "aa")
    metrics.job("failed")
    metrics.selected(10)
    metrics.labeled(7)
    metrics.queued(12)
    metrics.waited(0.03)
    for name, expected in {
        "lloss_wait_duration_seconds_sum": 0.03,
        "lloss_served_images_total": 3,
        "lloss_selected_images_total": 10,
        "lloss_labeled_images_total": 7,
        "lloss_queue_images": 12,
        "lloss_queue_limit_images": 64,
    }.items():
        assert value(metrics, name) == expected
    assert value(metrics, "lloss_refused_images_total", reason="queue_full") == 32
    assert value(metrics, "lloss_refused_images_total", reason="deadline") == 1
    assert value(metrics, "lloss_jobs_total", outcome="failed") == 1


def test_a_refused_reload_shows_until_one_succeeds(metrics: DaemonMetrics) -> None:
    states = []
    for outcome in ("swapped", "refused", "refused", "unchanged"):
        metrics.reloaded(outcome)
        states.append(value(metrics, "lloss_last_reload_successful"))
    assert states == [1, 0, 0, 1]
    assert value(metrics, "lloss_reloads_total", outcome="refused") == 2


def test_the_model_that_serves_is_named_and_its_drift_measured(metrics: DaemonMetrics) -> None:
    losses = np.random.default_rng(0).normal(1, 0.3, 1000).astype(np.float32)
    metrics.served(losses, "")
    assert math.isnan(value(metrics, "lloss_drift_psi"))
    metrics.model(manifest(LossReference.of(losses, "pool")), "aa", "cuda:1")
    name = {"sha256": "aa", "provider": "cuda", "device": "cuda:1", "precision": "fp16"}
    assert value(metrics, "lloss_model_info", **name) == 1
    assert value(metrics, "lloss_drift_window_images") == 0
    metrics.served(losses + np.float32(1), "aa")
    metrics.served(losses, "bb")  # of the model before
    assert value(metrics, "lloss_drift_psi") > 1
    assert value(metrics, "lloss_drift_window_images") == 1000
    metrics.model(manifest(), "bb", "cpu")
    assert value(metrics, "lloss_drift_window_images") == 0
    assert value(metrics, "lloss_model_info", **name) is None


def test_a_gauge_that_cannot_be_read_is_nan(
    metrics: DaemonMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> float:
        raise OSError("disk gone")

    metrics.gauge("lloss_unknown", "Not known.", broken)
    with caplog.at_level(logging.ERROR):
        assert "lloss_unknown NaN" in metrics.exposition().decode()
    assert "metric lloss_unknown cannot be read" in caplog.text and "disk gone" in caplog.text
