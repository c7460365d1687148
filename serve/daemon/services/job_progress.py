"""How far a job is, and whether it must stop."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable

from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.store.job_table import JobTable
from lloss.serve.daemon.store.records import JobRow
from lloss.serve.scoring.batch.score_pool import ScoreReport
from lloss.serve.scoring.result import Scores

from lloss.errors import InterruptedRunError, LlossError

_WRITE_SECONDS = 2.0
"""Between two writes to the catalog."""

_RATE_SECONDS = 30.0
"""Over which the rate is measured."""


class CancelledRunError(InterruptedRunError):
    """The job was cancelled."""


class JobProgress:
    """The progress of a running job, which ends early if ``cancelled`` is set; sets ``ended``."""

    def __init__(
        self, table: JobTable, row: JobRow, closing: threading.Event, metrics: DaemonMetrics
    ) -> None:
        self.id, self._model, self._metrics = row.id, row.model_sha256, metrics
        self.cancelled, self.ended = threading.Event(), threading.Event()
        self._table, self._closing = table, closing
        self._lock = threading.Lock()
        # Of a resumed job, until its parts are counted.
        self._scored, self._skipped, self._total = row.scored, row.skipped, row.total
        self._written = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    def begin(self, done: ScoreReport, total: Callable[[], int | None]) -> None:
        """See :class:`.score_pool.Progress`."""
        count = total()
        with self._lock:
            self._scored, self._skipped, self._total = done.scored, done.skipped, count
            self._samples.append((time.monotonic(), done.resumed))
        self._write()

    def batch(self, scores: Scores) -> None:
        """See :class:`.score_pool.Progress`; raises InterruptedRunError to stop the job."""
        now = time.monotonic()
        if len(scores):
            self._metrics.drift.add(scores.loss, self._model)
        with self._lock:
            self._scored += len(scores)
            self._skipped += len(scores.skipped)
            if now - self._samples[-1][0] > 0.5:
                self._samples.append((now, self._scored + self._skipped))
            while now - self._samples[0][0] > _RATE_SECONDS and len(self._samples) > 1:
                self._samples.popleft()
        if self.cancelled.is_set():
            raise CancelledRunError(f"job {self.id} was cancelled")
        if self._closing.is_set():
            raise InterruptedRunError(f"job {self.id} continues at the next start")
        if now - self._written > _WRITE_SECONDS:
            self._write()

    def update(self, row: JobRow) -> JobRow:
        """The row with the progress and the rate of now."""
        with self._lock:
            return dataclasses.replace(
                row,
                scored=self._scored,
                skipped=self._skipped,
                total=self._total,
                rate=self._rate(),
            )

    def _rate(self) -> float | None:
        """Images a second lately; None before that is known."""
        if not self._samples:
            return None
        began, before = self._samples[0]
        seconds = time.monotonic() - began
        return (self._scored + self._skipped - before) / seconds if seconds > 0.1 else None

    def _write(self) -> None:
        self._written = time.monotonic()
        with self._lock:
            counts = self._scored, self._skipped, self._total
        with contextlib.suppress(LlossError):  # the job continues without
            self._table.progress(self.id, *counts)
