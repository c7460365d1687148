"""How far a job is, and whether it must stop."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable

from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.store.job_table import JobTable
from lloss.serve.daemon.store.records import JobRow
from lloss.serve.scoring.batch.score_pool import ScoreReport
from lloss.serve.scoring.result import Scores

from lloss.errors import InterruptedRunError, LlossError

_WRITE_SECONDS = 2.0
"""Between two writes to the catalog."""


class JobProgress:
    """The progress of a running job, which ends early if ``cancelled`` is set; sets ``ended``."""

    def __init__(
        self, table: JobTable, row: JobRow, closing: threading.Event, metrics: DaemonMetrics
    ) -> None:
        self.id, self._model, self._metrics = row.id, row.model_sha256, metrics
        self.cancelled, self.ended = threading.Event(), threading.Event()
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
