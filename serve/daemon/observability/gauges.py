"""Gauges of the daemon's state: readiness, disk, jobs and pools, read at every scrape."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.store.catalog import Catalog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


def register_gauges(
    metrics: DaemonMetrics, catalog: Catalog, data_dir: Path, not_ready: Callable[[], str]
) -> None:
    """Add the gauges of a daemon's state to its metrics."""
    metrics.gauge(
        "lloss_ready", "1 when requests can be answered, as of /readyz.", lambda: not not_ready()
    )
    metrics.gauge(
        "lloss_data_free_bytes",
        "Free bytes under the data dir.",
        lambda: shutil.disk_usage(data_dir).free,
    )
    metrics.registry.register(CatalogCollector(catalog))


class CatalogCollector(Collector):
    """Gauges of jobs and pools; reads each table once a scrape."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        try:
            yield from (*self._jobs(), self._images())
        except Exception:  # the other metrics are still worth reading
            log.exception("the metrics of jobs and pools cannot be read")

    def _jobs(self) -> Iterator[Metric]:
        jobs = {"queued": 0, "running": 0}
        done = total = 0
        for job in self.catalog.jobs.active():
            jobs[job.state] += 1
            if job.state == "running":
                done, total = done + job.done, total + (job.total or 0)
        yield _by_state("lloss_open_jobs", "Jobs that have not ended.", jobs)
        yield GaugeMetricFamily(
            "lloss_job_done_images", "Images that the running job has scored or skipped.", done
        )
        yield GaugeMetricFamily(
            "lloss_job_total_images", "Images of its pool; 0 where counting is slow.", total
        )

    def _images(self) -> Metric:
        pools = self.catalog.pools.each(lambda row: (row, self.catalog.images.counts(row.name)))
        images = {
            "scored": sum(pool.scores.scored for pool, _ in pools if pool.scores),
            "labeled": sum(counts.labeled for _, counts in pools),
            "pending": sum(counts.pending for _, counts in pools),
            "skipped": sum(counts.skipped for _, counts in pools),
        }
        return _by_state("lloss_pool_images", "Images of all pools by state.", images)


def _by_state(name: str, help: str, states: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help, labels=["state"])
    for state, count in states.items():
        family.add_metric([state], count)
    return family
