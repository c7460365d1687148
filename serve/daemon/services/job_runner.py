"""Pools being scored, one at a time, behind the requests."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services import memory_trim as heap
from lloss.serve.daemon.services.model_manager import Models
from lloss.serve.daemon.services.pool_registry import Pools
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import JobRow
from lloss.serve.scoring.batch.score_pool import PART, ScoreReport, score_pool
from lloss.serve.scoring.result import Scores
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import InterruptedRunError, LlossError, OtherRunError, ScoresError

HOST_BATCH = 8
"""Images a run on a CPU: a request that comes waits for one such run at most."""

_WRITE_SECONDS = 2.0
"""Between two notes of the progress on disk."""

_AGAIN_SECONDS = 2.0
"""Between two tries to write what must be written, such as on a disk that is full."""

_RATE_SECONDS = 30.0
"""Over which the rate is measured."""

_CANCEL_SECONDS = 10.0
"""How long a request waits for a cancelled job to end."""

_CLOSE_SECONDS = 30.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


class CancelledRunError(InterruptedRunError):
    """Somebody cancelled the job."""


class Jobs:
    """A thread that scores pools; what a killed process left it goes on with.

    A job is scored into ``data_dir/pools/NAME/scores/ID`` by the batch engine, in the order in
    which jobs were submitted, by the model that served when it was submitted, in batches of one
    size. A job that failed for what may pass (a full disk, a store that cannot be reached, an
    engine that failed, another provider or version of a library than it began with) keeps its
    parts, and goes on when the pool is submitted again while the same model serves; one whose pool
    changed keeps none.

    Attributes:
        part_size: items a Parquet part: what a killed process does again at most, or twice that.
    """

    part_size = PART

    def __init__(
        self,
        settings: ServeSettings,
        catalog: Catalog,
        models: Models,
        pools: Pools,
        metrics: DaemonMetrics,
    ) -> None:
        self._settings, self._catalog, self._models = settings, catalog, models
        self._pools, self._metrics = pools, metrics
        self._table = catalog.jobs
        self._submitting = threading.Lock()  # a model's copy must not go while its job comes
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._current: _Followed | None = None
        self._thread = threading.Thread(target=self._work, name="lloss-jobs", daemon=True)

    def start(self) -> None:
        """Begin to work, first on jobs that were under way."""
        self._table.requeue()
        self._pools.sweep()
        self._thread.start()

    def submit(self, pool: str, restart: bool = False) -> JobRow:
        """Have a pool scored by the model that serves now; the job that is under way, if one is.

        Args:
            pool: its name.
            restart: whether what a failed job scored is thrown away.

        Raises:
            RequestError: 404 no such pool; 403 it lies under no root any more; 503 no model.
            PoolError: it cannot be opened.
        """
        self._pools.get(pool).open()
        with self._submitting:
            sha256 = self._models.sha256
            if not sha256:
                raise RequestError(503, "no model is loaded yet; try again", 5.0)
            size = self._settings.job_batch_size
            if not size and self._models.provider == "cpu":
                size = HOST_BATCH
            job = self._table.submit(pool, sha256, size, restart)
        self._wake.set()
        return job

    def prune(self) -> None:
        """Remove copies of models that neither serve nor are any job's."""
        with self._submitting, contextlib.suppress(LlossError):  # the next time then
            self._models.prune(self._table.models())

    def cancel(self, id: str) -> JobRow:
        """Stop a job between two batches and remove what it wrote; does nothing to ended ones.

        One that failed and would go on when it is submitted again does not any more.

        Raises:
            RequestError: 404.
        """
        if self._table.cancel(id):
            self._metrics.job("cancelled")
            current = self._current
            if current is not None and current.id == id:
                current.cancelled.set()
                current.ended.wait(_CANCEL_SECONDS)
            self._pools.sweep()
        return self._catalog.jobs.row(id)

    def live(self, row: JobRow) -> JobRow:
        """A job with its progress of this moment; the catalog's is some seconds old."""
        current = self._current
        if current is None or current.id != row.id or row.state != "running":
            return row
        return current.told(row)

    def rate(self, row: JobRow) -> float | None:
        """Images a second of a job that runs; None of another, or before that is known."""
        current = self._current
        if current is None or current.id != row.id or row.state != "running":
            return None
        return current.rate()

    def close(self) -> None:
        """Interrupt the job between two batches; it goes on at the next start."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
            if self._thread.is_alive():
                _log.warning("a job did not stop in %.0f s; it goes on at the next start",
                             _CLOSE_SECONDS)  # fmt: skip

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            row = None
            with contextlib.suppress(LlossError):  # the catalog cannot be read just now
                row = self._table.next()
            if row is None:
                self._wake.wait(5.0)
                continue
            followed = self._current = _Followed(self._catalog, row, self._closing, self._metrics)
            try:
                with self._pools.holding(row.folder):
                    self._guarded(row, followed)
            except InterruptedRunError:
                pass  # cancelled or closing, which the catalog knows
            except Exception:  # such as a damaged catalog; others may fare better, later
                _log.exception("job %s of the pool %s cannot be noted", row.id, row.pool)
                self._closing.wait(_AGAIN_SECONDS)
            finally:
                self._current = None
                followed.ended.set()
            heap.give_back()  # of its tables, and of its model if that is an earlier one

    def _guarded(self, row: JobRow, followed: _Followed) -> None:
        """Score it; whatever goes wrong is the job's failure."""
        try:
            with self._models.borrowed(row.model_sha256) as scorer:
                report = self._scored(row, scorer, followed)
        except InterruptedRunError:
            raise
        except LlossError as error:
            if self._closing.is_set():  # the scorer was closed under it
                raise InterruptedRunError(str(error)) from error
            resumable = not isinstance(error, ScoresError) or isinstance(error, OtherRunError)
            self._fail(row, _told(error, resumable), resumable)
        except Exception:
            _log.exception("job %s of the pool %s failed", row.id, row.pool)
            self._fail(row, "internal error; see the daemon's log", resumable=True)
        else:
            if self._surely(lambda: self._table.finish(row.id, report.scored, report.skipped)):
                _log.info("job %s of the pool %s: %d images scored, %d skipped",
                          row.id, row.pool, report.scored, report.skipped)  # fmt: skip
                self._metrics.job("done")
                self.prune()

    def _scored(self, row: JobRow, scorer: Scorer, followed: _Followed) -> ScoreReport:
        provider = scorer.engine.provider
        if row.provider not in ("", provider):
            raise OtherRunError(f"it was begun with provider = {row.provider!r}, now it is "
                                f"{provider!r}; ")  # fmt: skip
        pool = self._pools.reopen(row.pool)
        size = row.batch_size or scorer.batch_size
        if row.started is None:
            size = min(size, scorer.batch_size)
        if not self._surely(lambda: self._table.begin(row.id, size, provider)):
            raise CancelledRunError(f"job {row.id} was cancelled")
        report = score_pool(
            scorer,
            pool,
            row.folder,
            part_size=self.part_size,
            batch_size=size,
            progress=followed,
        )
        if remark := pool.remark():
            _log.warning("job %s of the pool %s: %s", row.id, row.pool, remark)
        return report

    def _fail(self, row: JobRow, error: str, resumable: bool) -> None:
        _log.warning("job %s of the pool %s failed: %s", row.id, row.pool, error)
        if self._surely(lambda: self._table.fail(row.id, error, resumable)):
            self._metrics.job("failed")

    def _surely(self, step: Callable[[], T]) -> T:
        """Write to the catalog, and where that cannot be done now, as soon as it can.

        Raises:
            InterruptedRunError: the daemon ends before it could.
        """
        while True:
            try:
                return step()
            except RequestError as error:
                if self._closing.wait(_AGAIN_SECONDS):
                    raise InterruptedRunError(str(error)) from error


def _told(error: LlossError, resumable: bool) -> str:
    """An error of the batch engine for whoever has no command line."""
    what = str(error).partition("; ")[0]
    if isinstance(error, OtherRunError):
        return (
            f"{what}; what was scored is kept: go back to that and score the pool again to go on, "
            "or score it with anew=true"
        )
    if resumable:
        return f"{error} (score the pool again to go on)"
    return f"{what}; what was scored is removed, score the pool again"


class _Followed:
    """How far a job is; ends it when it was cancelled or the daemon ends.

    Attributes:
        id: of the job.
        cancelled: to be set by whoever cancels it.
        ended: set when it does not run any more.
    """

    def __init__(
        self, catalog: Catalog, row: JobRow, closing: threading.Event, metrics: DaemonMetrics
    ) -> None:
        self.id, self._model, self._metrics = row.id, row.model_sha256, metrics
        self.cancelled, self.ended = threading.Event(), threading.Event()
        self._table, self._closing = catalog.jobs, closing
        self._lock = threading.Lock()
        # Of a job that goes on, until what it wrote is looked through.
        self._scored, self._skipped, self._total = row.scored, row.skipped, row.total
        self._written = 0.0
        self._seen: deque[tuple[float, int]] = deque()

    def begin(self, done: ScoreReport, total: Callable[[], int | None]) -> None:
        """See :class:`..run.Progress`."""
        count = total()
        with self._lock:
            self._scored, self._skipped, self._total = done.scored, done.skipped, count
            self._seen.append((time.monotonic(), done.resumed))
        self._write()

    def batch(self, scores: Scores) -> None:
        """See :class:`..run.Progress`."""
        now = time.monotonic()
        if len(scores):
            self._metrics.drift.add(scores.loss, self._model)
        with self._lock:
            self._scored += len(scores)
            self._skipped += len(scores.skipped)
            if now - self._seen[-1][0] > 0.5:
                self._seen.append((now, self._scored + self._skipped))
            while now - self._seen[0][0] > _RATE_SECONDS and len(self._seen) > 1:
                self._seen.popleft()
        if self.cancelled.is_set():
            raise CancelledRunError(f"job {self.id} was cancelled")
        if self._closing.is_set():
            raise InterruptedRunError(f"job {self.id} goes on at the next start")
        if now - self._written > _WRITE_SECONDS:
            self._write()

    def end(self) -> None:
        """See :class:`..run.Progress`."""

    def told(self, row: JobRow) -> JobRow:
        """The row with the progress of now."""
        with self._lock:
            return dataclasses.replace(
                row,
                scored=self._scored,
                skipped=self._skipped,
                total=self._total,
            )

    def rate(self) -> float | None:
        """Images a second lately."""
        with self._lock:
            if not self._seen:
                return None
            at, before = self._seen[0]
            seconds = time.monotonic() - at
            return (self._scored + self._skipped - before) / seconds if seconds > 0.1 else None

    def _write(self) -> None:
        self._written = time.monotonic()
        with self._lock:
            figures = self._scored, self._skipped, self._total
        with contextlib.suppress(LlossError):  # it is on its way all the same
            self._table.progress(self.id, *figures)
