"""What is read of the daemon whenever its metrics are."""

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
    """Add gauges of the daemon's state, read at every scrape.

    ``lloss_ready``, ``lloss_data_free_bytes``, ``lloss_open_jobs{state}``,
    ``lloss_job_done_images`` and ``lloss_job_total_images`` of the job that runs,
    ``lloss_pools`` and ``lloss_pool_images{state}`` of all pools together, and
    ``lloss_restamped_images``.
    """
    metrics.gauge(
        "lloss_ready",
        "1 when requests can be answered, as /readyz says it.",
        lambda: not not_ready(),
    )
    metrics.gauge(
        "lloss_data_free_bytes",
        "Bytes that can still be written under the data dir.",
        lambda: shutil.disk_usage(data_dir).free,
    )
    metrics.gauge(
        "lloss_restamped_images",
        "Pending images of a clock in the future, handed out now since the start.",
        lambda: catalog.restamped,
    )
    metrics.registry.register(_Catalogued(catalog))


class _Catalogued(Collector):
    """Jobs and pools, of which each table is read once a scrape."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def describe(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.CollectorRegistry``."""
        yield from (*_of_jobs({}, 0, 0), *_of_pools({}, 0))

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        try:
            yield from [*self._jobs(), *self._pools()]
        except Exception:  # a catalog that cannot be read must not take the others along
            log.exception("the metrics of jobs and pools cannot be read")

    def _jobs(self) -> Iterator[Metric]:
        states = {"queued": 0, "running": 0}
        done = total = 0
        for job in self.catalog.jobs.active():
            states[job.state] += 1
            if job.state == "running":
                done, total = done + job.done, total + (job.total or 0)
        return _of_jobs(states, done, total)

    def _pools(self) -> Iterator[Metric]:
        pools = self.catalog.pools.each(lambda row: (row, self.catalog.images.counts(row.name)))
        states = {"scored": 0, "labeled": 0, "pending": 0, "skipped": 0}
        for pool, counts in pools:
            states["scored"] += pool.scored
            states["labeled"] += counts.labeled
            states["pending"] += counts.pending
            states["skipped"] += counts.skipped
        return _of_pools(states, len(pools))


def _of_jobs(states: dict[str, int], done: int, total: int) -> Iterator[Metric]:
    yield _by_state("lloss_open_jobs", "Jobs that have not ended.", states)
    yield GaugeMetricFamily(
        "lloss_job_done_images", "Images that the job under way has scored or skipped.", done
    )
    yield GaugeMetricFamily(
        "lloss_job_total_images", "Images of its pool; 0 where counting is not cheap.", total
    )


def _of_pools(states: dict[str, int], pools: int) -> Iterator[Metric]:
    yield GaugeMetricFamily("lloss_pools", "Pools that have a name here.", pools)
    yield _by_state("lloss_pool_images", "Images of all pools by what is known of them.", states)


def _by_state(name: str, help: str, states: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help, labels=["state"])
    for state, count in states.items():
        family.add_metric([state], count)
    return family
