"""What is read of a daemon at every scrape; its catalog is made up here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lloss.serve.daemon.observability.gauges import register_gauges
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.store.records import PoolRow, PoolScores

SCORES = {
    "a": PoolScores(Path("/a"), "m", 100, 1),
    "b": PoolScores(Path("/b"), "m", 20, 0),
    "c": None,
}


class Catalog:
    def __init__(self) -> None:
        self.readings = 0
        self.broken = False
        self.jobs = self.pools = self.images = self

    def active(self) -> list[Any]:
        self.readings += 1
        if self.broken:
            raise OSError("disk I/O error")
        return [
            SimpleNamespace(state="queued", done=0, total=None),
            SimpleNamespace(state="queued", done=0, total=10),
            SimpleNamespace(state="running", done=40, total=100),
        ]

    def each(self, view: Callable[[Any], Any]) -> list[Any]:
        pools = [PoolRow(name, "/", 0.0, scores) for name, scores in SCORES.items()]
        return [view(pool) for pool in pools]

    def counts(self, pool: str) -> Any:
        return SimpleNamespace(labeled=5, pending={"a": 10}.get(pool, 0), skipped=1)


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    found = SimpleNamespace(
        metrics=DaemonMetrics(),
        catalog=Catalog(),
        reason="loading the model",
    )
    register_gauges(found.metrics, found.catalog, tmp_path, lambda: found.reason)
    return found


def test_it_is_read_when_it_is_asked_for(daemon: Any, tmp_path: Path) -> None:
    assert daemon.catalog.readings == 0
    sample = daemon.metrics.registry.get_sample_value
    assert sample("lloss_ready") == 0
    daemon.reason = ""
    assert sample("lloss_ready") == 1
    assert sample("lloss_open_jobs", {"state": "queued"}) == 2
    assert sample("lloss_open_jobs", {"state": "running"}) == 1
    assert sample("lloss_job_done_images") == 40
    assert sample("lloss_job_total_images") == 100
    states = {"scored": 120, "labeled": 15, "pending": 10, "skipped": 3}
    for state, count in states.items():
        assert sample("lloss_pool_images", {"state": state}) == count
    free = shutil.disk_usage(tmp_path).free
    assert sample("lloss_data_free_bytes") == pytest.approx(free, rel=0.2)


def test_one_scrape_reads_the_catalog_once(daemon: Any) -> None:
    daemon.metrics.exposition()
    assert daemon.catalog.readings == 1


def test_a_broken_catalog_takes_no_other_metric_along(
    daemon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.catalog.broken = True
    body = daemon.metrics.exposition().decode()
    assert "lloss_ready 0.0" in body and "lloss_open_jobs{" not in body
    assert "cannot be read" in caplog.text
