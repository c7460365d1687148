"""Score pools in a background thread, one at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services import memory_trim
from lloss.serve.daemon.services.model_manager import ModelManager
from lloss.serve.daemon.services.pool_registry import PoolRegistry
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.job_table import JobTable
from lloss.serve.daemon.store.records import JobRow
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.batch.scoring_run import PART, ScoreReport
from lloss.serve.scoring.result import Scores
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import InterruptedRunError, LlossError, OtherRunError, ScoresError

HOST_BATCH = 8
"""Images per batch on a CPU: a new request waits for one such batch at most."""

_WRITE_SECONDS = 2.0
"""Between two writes of a job's progress."""

_RETRY_SECONDS = 2.0
"""Between two attempts to write to the catalog, such as on a full disk."""

_CLOSE_SECONDS = 30.0

T = TypeVar("T")


class JobProgress:
    """The progress of a running job, which ends early if ``cancelled`` is set."""

    def __init__(
        self, table: JobTable, row: JobRow, closing: threading.Event, metrics: DaemonMetrics
    ) -> None:
        self.id, self._model, self._metrics = row.id, row.model_sha256, metrics
        self.cancelled = threading.Event()
        self._table, self._closing = table, closing
        # Of a resumed job, until its parts are counted.
        self._scored, self._skipped, self._total = row.scored, row.skipped, row.total
        self._began, self._resumed = 0.0, 0
        self._written = 0.0

    def begin(self, done: ScoreReport, total: Callable[[], int | None]) -> None:
        """See :class:`.score_pool.Progress`."""
        self._scored, self._skipped, self._total = done.scored, done.skipped, total()
        self._began, self._resumed = time.monotonic(), done.resumed
        self._write()

    def batch(self, scores: Scores) -> None:
        """See :class:`.score_pool.Progress`; raises InterruptedRunError to stop the job."""
        if len(scores):
            self._metrics.drift.add(scores.loss, self._model)
        self._scored += len(scores)
        self._skipped += len(scores.skipped)
        if self.cancelled.is_set() or self._closing.is_set():
            raise InterruptedRunError(f"job {self.id} was cancelled, or the daemon shuts down")
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self._write()

    def update(self, row: JobRow) -> JobRow:
        """The row with the progress of now, and the rate since the job began or went on."""
        done = self._scored + self._skipped - self._resumed
        seconds = time.monotonic() - self._began
        return dataclasses.replace(
            row,
            scored=self._scored,
            skipped=self._skipped,
            total=self._total,
            rate=done / seconds if self._began and seconds > 0.1 else None,
        )

    def _write(self) -> None:
        self._written = time.monotonic()
        with contextlib.suppress(LlossError):  # the job continues without
            self._table.progress(self.id, self._scored, self._skipped, self._total)


class JobRunner:
    """A thread that scores pools, and continues jobs of a process that was killed.

    A job scores its pool into ``data_dir/pools/NAME/scores/ID``, with the model that served when it
    was submitted and one batch size. Jobs run in the order in which they were submitted. After a
    failure that can pass (full disk, unreachable store, engine error, another provider or library
    version) a job keeps its parts, and continues when the pool is submitted again with the same
    model; after a change of the pool it keeps none.
    """

    part_size = PART

    def __init__(
        self,
        settings: ServeSettings,
        catalog: Catalog,
        models: ModelManager,
        pools: PoolRegistry,
        metrics: DaemonMetrics,
    ) -> None:
        self._settings, self._models, self._pools = settings, models, pools
        self._table, self._metrics = catalog.jobs, metrics
        self._submitting = threading.Lock()  # the model's copy must not be pruned before its job
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._current: JobProgress | None = None
        self._thread = threading.Thread(target=self._run, name="lloss-jobs", daemon=True)

    def start(self) -> None:
        """Start the thread, with the jobs that were active before."""
        self._table.requeue()
        self._pools.sweep()
        self._thread.start()

    def submit(self, pool: str, restart: bool = False) -> JobRow:
        """Score a pool with the serving model; ``restart`` discards what a failed job scored."""
        self._pools.get(pool).open()
        with self._submitting:
            model = self._models.current
            size = self._settings.job_batch_size or (HOST_BATCH if model.provider == "cpu" else 0)
            job = self._table.submit(pool, model.sha256, size, restart)
        self._wake.set()
        return job

    def prune(self) -> None:
        """Remove copies of models that neither serve nor are needed by a job."""
        with self._submitting, contextlib.suppress(LlossError):  # repeated after the next job
            self._models.prune(self._table.models())

    def cancel(self, id: str) -> JobRow:
        """Stop a job at its next batch, and discard its parts; also a failed, resumable one's."""
        if self._table.cancel(id):
            self._metrics.job("cancelled")
            current = self._current
            if current is not None and current.id == id:
                current.cancelled.set()
            self._pools.sweep()
        return self._table.row(id)

    def live(self, row: JobRow) -> JobRow:
        """A job with its progress and rate of now; the catalog's is some seconds old."""
        current = self._current
        if current is None or current.id != row.id or row.state != "running":
            return row
        return current.update(row)

    def close(self) -> None:
        """Interrupt the job between two batches; it continues at the next start."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
            if self._thread.is_alive():
                logs.event(
                    "job_not_stopped", logging.WARNING, seconds=_CLOSE_SECONDS,
                    note="it continues at the next start",
                )  # fmt: skip

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            row = None
            with contextlib.suppress(LlossError):  # the catalog cannot be read now
                row = self._table.next()
            if row is None:
                self._wake.wait(5.0)
                continue
            progress = self._current = JobProgress(self._table, row, self._closing, self._metrics)
            try:
                with self._pools.holding(row.folder):
                    self._run_job(row, progress)
            except InterruptedRunError:
                pass  # cancelled or closing; the catalog has it
            except Exception as error:  # such as a damaged catalog
                _log_job("job_not_recorded", row, logging.ERROR, error)
                self._closing.wait(_RETRY_SECONDS)
            finally:
                self._current = None
            memory_trim.trim()

    def _run_job(self, row: JobRow, progress: JobProgress) -> None:
        """Run a job; whatever goes wrong is recorded as its failure."""
        try:
            with self._models.borrowed(row.model_sha256) as scorer:
                report = self._score(row, scorer, progress)
        except InterruptedRunError:
            raise
        except LlossError as error:
            if self._closing.is_set():  # the scorer was closed first
                raise InterruptedRunError(str(error)) from error
            resumable = not isinstance(error, ScoresError) or isinstance(error, OtherRunError)
            self._fail(row, _explain(error, resumable), resumable)
        except Exception as error:
            self._fail(row, "internal error; see the daemon's log", resumable=True, cause=error)
        else:
            if self._retry(lambda: self._table.finish(row.id, report.scored, report.skipped)):
                _log_job("job_done", row, scored=report.scored, skipped=report.skipped)
                self._metrics.job("done")
                self.prune()

    def _score(self, row: JobRow, scorer: Scorer, progress: JobProgress) -> ScoreReport:
        pool = self._pools.reopen(row.pool)
        size = min(row.batch_size or scorer.batch_size, scorer.batch_size)
        if not self._retry(lambda: self._table.begin(row.id, size)):
            raise InterruptedRunError(f"job {row.id} was cancelled")
        report = score_pool(
            scorer,
            pool,
            row.folder,
            part_size=self.part_size,
            batch_size=size,
            progress=progress,
        )
        if remark := pool.remark():
            _log_job("pool_remark", row, logging.WARNING, note=remark)
        return report

    def _fail(
        self, row: JobRow, error: str, resumable: bool, cause: Exception | None = None
    ) -> None:
        level = logging.ERROR if cause else logging.WARNING
        _log_job("job_failed", row, level, cause, reason=error, resumable=resumable)
        if self._retry(lambda: self._table.fail(row.id, error, resumable)):
            self._metrics.job("failed")

    def _retry(self, write: Callable[[], T]) -> T:
        """Write to the catalog as soon as that succeeds, unless the daemon shuts down before."""
        while True:
            try:
                return write()
            except RequestError as error:
                if self._closing.wait(_RETRY_SECONDS):
                    raise InterruptedRunError(str(error)) from error


def _log_job(
    event: str,
    row: JobRow,
    level: int = logging.INFO,
    cause: Exception | None = None,
    **fields: object,
) -> None:
    logs.event(event, level, cause, job=row.id, pool=row.pool, **fields)


def _explain(error: LlossError, resumable: bool) -> str:
    """An error of the batch engine with a remedy of the HTTP API."""
    what = str(error).partition("; ")[0]
    if isinstance(error, OtherRunError):
        return (
            f"{what}; what was scored is kept: go back to that and score the pool again to "
            "continue, or score it with anew=true"
        )
    if resumable:
        return f"{error} (score the pool again to continue)"
    return f"{what}; what was scored is removed, score the pool again"
