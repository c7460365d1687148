"""What is read of a daemon at every scrape; its catalog is made up here."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from lloss.serve.daemon.observability.gauges import register_gauges
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.store.records import PoolRow, PoolScores

POOLS = [
    PoolRow("a", "/", 0.0, PoolScores(Path("/a"), "m", 100, 1)),
    PoolRow("b", "/", 0.0, PoolScores(Path("/b"), "m", 20, 0)),
    PoolRow("c", "/", 0.0, None),
]


@pytest.fixture
def catalog() -> Any:
    catalog = Mock()
    catalog.jobs.active.return_value = [
        SimpleNamespace(state="queued", done=0, total=None),
        SimpleNamespace(state="queued", done=0, total=10),
        SimpleNamespace(state="running", done=40, total=100),
    ]
    catalog.pools.each = lambda view: [view(pool) for pool in POOLS]
    catalog.images.counts = lambda pool: SimpleNamespace(labeled=5, pending=10, skipped=1)
    return catalog


def test_the_state_is_read_at_each_scrape(catalog: Any, tmp_path: Path) -> None:
    reasons = ["loading the model", ""]
    metrics = DaemonMetrics()
    register_gauges(metrics, catalog, tmp_path, lambda: reasons[0])
    sample = metrics.registry.get_sample_value
    assert sample("lloss_ready") == 0
    reasons.pop(0)
    assert sample("lloss_ready") == 1
    assert sample("lloss_open_jobs", {"state": "queued"}) == 2
    assert sample("lloss_open_jobs", {"state": "running"}) == 1
    assert sample("lloss_job_done_images") == 40
    assert sample("lloss_job_total_images") == 100
    states = {"scored": 120, "labeled": 15, "pending": 30, "skipped": 3}
    for state, count in states.items():
        assert sample("lloss_pool_images", {"state": state}) == count
    free = shutil.disk_usage(tmp_path).free
    assert sample("lloss_data_free_bytes") == pytest.approx(free, rel=0.2)


def test_a_broken_catalog_takes_no_other_metric_along(
    catalog: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog.jobs.active.side_effect = OSError("disk I/O error")
    metrics = DaemonMetrics()
    register_gauges(metrics, catalog, tmp_path, lambda: "loading the model")
    body = metrics.exposition().decode()
    assert "lloss_ready 0.0" in body and "lloss_open_jobs{" not in body
    assert "cannot be read" in caplog.text
