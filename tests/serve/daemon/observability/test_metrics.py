"""What the daemon counts, as a scraper reads it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.daemon.observability.metrics import ENDED, OTHER, REFUSED, RELOADED, DaemonMetrics
from lloss.serve.daemon.settings import Limits
from lloss.serve.scoring.telemetry import Telemetry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metric_families,
)
from prometheus_client.parser import text_string_to_metric_families

import lloss
from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest
from lloss.statistics.loss_distribution import LossReference

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(metrics: DaemonMetrics) -> Samples:
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: DaemonMetrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((name, frozenset(labels.items())))


def manifest(reference: LossReference | None = None, precision: str = "fp32") -> Manifest:
    return Manifest(
        task="classification",
        model="m",
        classes=("a", "b"),
        image=ImageSpec(8, 8),
        mean=(0.5,),
        std=(0.5,),
        outputs={"loss": ()},
        precision=precision,
        reference=reference,
    )


def test_requests_are_counted_by_route_and_code() -> None:
    metrics = DaemonMetrics()
    metrics.request("/v1/score", 200, 0.02)
    metrics.request("/v1/score", 200, 0.2)
    metrics.request("/v1/score", 429, 0.002)
    metrics.request("/metrics", 200, 0.01)
    count = "lloss_requests_total"
    assert value(metrics, count, route="/v1/score", code="200") == 2
    assert value(metrics, count, route="/v1/score", code="429") == 1
    name = "lloss_request_duration_seconds"
    assert value(metrics, f"{name}_count", route="/v1/score") == 3
    assert value(metrics, f"{name}_sum", route="/v1/score") == pytest.approx(0.222)
    assert value(metrics, f"{name}_bucket", route="/v1/score", le="0.025") == 2
    assert value(metrics, f"{name}_bucket", route="/v1/score", le="60.0") == 3


def test_requests_in_flight_go_up_and_down() -> None:
    metrics = DaemonMetrics()
    metrics.arrived()
    metrics.arrived()
    metrics.left()
    assert value(metrics, "lloss_requests_in_flight") == 1


def test_a_path_for_a_route_does_not_fill_the_memory() -> None:
    metrics = DaemonMetrics()
    metrics.request("/v1/score", 200, 0.1)
    before = len(scraped(metrics))
    for number in range(3000):
        metrics.request(f"/pools/{number}", 404, 0.001)
        metrics.refused(f"reason {number}")
    found = scraped(metrics)
    # A histogram has 19 series a route, with the moment that it was made.
    assert len(found) - before <= 200 * (2 + 19 + 2) + 25
    other = frozenset({("route", OTHER), ("code", OTHER)})
    assert found["lloss_requests_total", other] > 2700
    counted = sum(n for (name, _), n in found.items() if name == "lloss_requests_total")
    assert counted == 3001
    metrics.request("/v1/score", 200, 0.1)
    assert value(metrics, "lloss_requests_total", route="/v1/score", code="200") == 2


def test_all_that_alerts_look_at_is_there_before_anything_happens() -> None:
    found = scraped(DaemonMetrics())
    for name, label, known in (
        ("lloss_refused_images_total", "reason", REFUSED),
        ("lloss_jobs_total", "outcome", ENDED),
        ("lloss_reloads_total", "outcome", RELOADED),
        ("lloss_images_total", "outcome", ("scored", "skipped")),
    ):
        for each in known:
            assert found[name, frozenset({(label, each)})] == 0, (name, each)


def test_images_jobs_reloads_and_labels_are_counted() -> None:
    metrics = DaemonMetrics()
    metrics.refused("queue_full", 32)
    metrics.refused("deadline")
    metrics.served(np.array([0.1, 0.2, np.nan], np.float32), "aa")
    metrics.job("failed")
    metrics.selected(10)
    metrics.labeled(7)
    metrics.queued(12)
    metrics.waited(0.03)
    assert value(metrics, "lloss_wait_duration_seconds_sum") == 0.03
    assert value(metrics, "lloss_wait_duration_seconds_bucket", le="0.05") == 1
    assert value(metrics, "lloss_refused_images_total", reason="queue_full") == 32
    assert value(metrics, "lloss_refused_images_total", reason="deadline") == 1
    assert value(metrics, "lloss_served_images_total") == 3
    assert value(metrics, "lloss_jobs_total", outcome="failed") == 1
    assert value(metrics, "lloss_selected_images_total") == 10
    assert value(metrics, "lloss_labeled_images_total") == 7
    assert value(metrics, "lloss_queue_images") == 12
    assert value(metrics, "lloss_queue_limit_images") == 1024
    small = DaemonMetrics(Limits(queue_images=64))
    assert value(small, "lloss_queue_limit_images") == 64


def test_a_refused_reload_shows_until_one_succeeds() -> None:
    metrics = DaemonMetrics()
    states = []
    for outcome in ("swapped", "refused", "refused", "unchanged"):
        metrics.reloaded(outcome)
        states.append(value(metrics, "lloss_last_reload_successful"))
    assert states == [1, 0, 0, 1]
    assert value(metrics, "lloss_reloads_total", outcome="refused") == 2


def models_named(metrics: DaemonMetrics) -> list[dict[str, str]]:
    return [dict(labels) for name, labels in scraped(metrics) if name == "lloss_model_info"]


def test_one_model_is_named_at_a_time() -> None:
    metrics = DaemonMetrics()
    assert models_named(metrics) == []
    metrics.model(manifest(), "aa11", "cpu")
    metrics.model(manifest(precision="fp16"), "bb22", "cuda:1")
    wanted = [{"sha256": "bb22", "provider": "cuda", "device": "cuda:1", "precision": "fp16"}]
    assert models_named(metrics) == wanted
    # A job that goes on with an earlier model opens a scorer for it, which tells its telemetry.
    metrics.telemetry.model("aa11", "cpu", "fp32")
    assert models_named(metrics) == wanted
    assert isinstance(metrics.telemetry, Telemetry)


def test_a_scraper_never_sees_two_models_or_none() -> None:
    metrics, ended = DaemonMetrics(), threading.Event()
    metrics.model(manifest(), "0", "cpu")

    def swapping() -> None:
        number = 0
        while not ended.is_set():
            metrics.model(manifest(), str(number := number + 1), "cpu")

    thread = threading.Thread(target=swapping)
    thread.start()
    try:
        assert {len(models_named(metrics)) for _ in range(30)} == {1}
    finally:
        ended.set()
        thread.join()


def test_drift_is_of_the_model_that_serves() -> None:
    random, metrics = np.random.default_rng(0), DaemonMetrics()
    losses = random.normal(1, 0.3, 1000).astype(np.float32)
    metrics.served(losses, "")
    assert np.isnan(value(metrics, "lloss_drift_psi"))  # type: ignore[call-overload]
    metrics.model(manifest(LossReference.of(losses, "pool")), "aa", "cpu")
    assert value(metrics, "lloss_drift_window_images") == 0
    metrics.served(losses + np.float32(1), "aa")
    metrics.served(losses, "bb")  # ends what it began
    assert (value(metrics, "lloss_drift_psi") or 0) > 1
    assert value(metrics, "lloss_drift_window_images") == 1000
    assert value(metrics, "lloss_drift_reference_images") == 1000
    metrics.model(manifest(), "bb", "cpu")
    assert value(metrics, "lloss_drift_window_images") == 0
    assert value(metrics, "lloss_drift_reference_images") == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_process_tells_of_itself() -> None:
    metrics = DaemonMetrics()
    before = value(metrics, "process_threads") or 0
    release = threading.Event()
    threads = [threading.Thread(target=release.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert value(metrics, "process_threads") == before + 5
    release.set()
    for thread in threads:
        thread.join()
    opened = value(metrics, "process_open_fds") or 0
    pipe = os.pipe()
    assert value(metrics, "process_open_fds") == opened + 2
    for end in pipe:
        os.close(end)
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 1e7
    assert 0 < time.time() - (value(metrics, "process_start_time_seconds") or 0) < 3600
    assert any(
        name == "lloss_build_info" and ("version", lloss.__version__) in labels
        for name, labels in scraped(metrics)
    )


def test_a_value_that_cannot_be_read_takes_no_other_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = DaemonMetrics()
    metrics.gauge("lloss_known", "Known.", lambda: 7)

    def broken() -> float:
        raise OSError("disk gone")

    metrics.gauge("lloss_unknown", "Not known.", broken)
    with caplog.at_level(logging.ERROR):
        assert value(metrics, "lloss_known") == 7
        assert value(metrics, "lloss_unknown") is None
    assert "metric lloss_unknown cannot be read" in caplog.text and "disk gone" in caplog.text
    with pytest.raises(ValueError, match="uplicat"):
        metrics.gauge("lloss_known", "Again.", lambda: 8)


def test_who_asks_for_open_metrics_gets_them() -> None:
    metrics = DaemonMetrics()
    metrics.request("/v1/score", 200, 0.1)
    metrics.model(manifest(), "aa", "cpu")
    body, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in open_metric_families(body.decode())}
    assert {"lloss_requests", "lloss_model_info", "lloss_drift_psi"} <= names
    for accept in ("*/*", "nonsense;;;=", "text/plain;version=zero"):
        metrics.exposition(accept)


def test_threads_lose_no_count() -> None:
    metrics = DaemonMetrics()

    def work(number: int) -> None:
        for turn in range(500):
            metrics.arrived()
            metrics.request(f"/{turn % 7}", 200 + number, 0.01)
            metrics.left()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = scraped(metrics)
    assert sum(n for (name, _), n in found.items() if name == "lloss_requests_total") == 2000
    assert value(metrics, "lloss_requests_in_flight") == 0


def test_a_request_costs_microseconds() -> None:
    metrics = DaemonMetrics()

    def one() -> None:
        metrics.arrived()
        metrics.request("/v1/score", 200, 0.013)
        metrics.left()

    assert quickest(one) < 0.01  # 2.2 µs where nothing else runs


def quickest(work: Callable[[], None]) -> float:
    costs = []
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(100):
            work()
        costs.append((time.perf_counter() - begun) / 100)
    return min(costs)
