"""What is done with a job, one thread after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lloss.serve.scoring.batch.chunk import Job
from lloss.serve.scoring.batch.worker_pool import POOL, Threads
from lloss.serve.scoring.result import Scores, no_columns
from numpy.typing import NDArray

from lloss.errors import EngineError, ImageError
from lloss.images.decode import MAX_PIXELS, Raw, decode_into

if TYPE_CHECKING:
    from lloss.serve.scoring.batch.pipeline import Pipeline

PIECE = 16
"""Images that one thread decodes in a row for a device's batch."""

CLOSED = "the scorer was closed"


class Steps:
    """Fetch, decode, compute, finish; each step hands a job over to the next one's threads.

    Attributes:
        stopped: nobody waits for the results any more.
        priority: of its tasks; see :mod:`.workers`.
        remote: whether reading waits for a network.
        max_pixels: that an encoded image may declare.
    """

    priority = POOL
    remote = False
    max_pixels = MAX_PIXELS

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.engine, self.telemetry = pipeline.engine, pipeline.telemetry
        self.spec = pipeline.spec
        self.executor = pipeline.engine.executor
        self.stopped = False

    def learn(self, size: int, images: int) -> None:
        """Some images have so many bytes."""

    def left(self) -> None:
        """A job is done, however it ended."""

    def submit(self, workers: Threads, job: Job, step: Callable[..., None], *given: Any) -> None:
        """Do a step of a job in one of some threads; whatever goes wrong is the job's result."""

        def guarded() -> None:
            try:
                if self.pipeline.closed.is_set():
                    self.stopped = True
                    job.failure = job.failure or EngineError(CLOSED)
                step(job, *given)
            except BaseException as error:
                self.finish(job, error)

        try:
            workers.submit(guarded, self.priority)
        except RuntimeError as error:  # they were shut down, or cannot grow
            closed = self.pipeline.closed.is_set()
            self.finish(job, EngineError(CLOSED if closed else f"no thread to be had: {error}"))

    def fetch_all(self, job: Job) -> None:
        """Rows of an array in one reading, files beside each other."""
        rows = np.empty((len(job.items), self.spec.height, self.spec.width, 3), np.uint8)
        if self._read_at_once(job, rows):
            job.rows = rows
            self.learn(rows.nbytes, len(rows))
            self.decode(job)
            return
        job.split(len(job.items))
        for row in range(len(job.items)):
            self.submit(self.pipeline.readers, job, self._fetch, row)

    def _fetch(self, job: Job, row: int) -> None:
        with job.part(then=lambda: self.decode(job)):
            if self.stopped:
                return
            begun = time.perf_counter()
            try:
                raw = job.items[row].read()
                job.fetched[row] = raw
                self.learn(_size(raw), 1)
            except ImageError as error:
                job.fetched[row] = error
            job.spent("read", time.perf_counter() - begun)

    def decode(self, job: Job) -> None:
        """Hand it to the threads that decode, with what was fetched."""
        if job.failure is not None:
            self.finish(job, job.failure)
            return
        if self.pipeline.lanes is None:
            self.submit(self.pipeline.workers, job, self.decode_and_compute)
            return
        job.buffer = self.executor.buffer()
        self.submit(self.pipeline.workers, job, self.decode_pieces)

    def decode_and_compute(self, job: Job) -> None:
        """On the CPU: everything in one thread."""
        self.telemetry.spent("queue", time.perf_counter() - job.begun)
        job.buffer = self.executor.buffer()
        if not self._read_rows(job):
            self._fill(job, range(len(job.items)))
        self._compute(job)

    def decode_pieces(self, job: Job) -> None:
        """For a device: the pieces of a batch beside each other."""
        self.telemetry.spent("queue", time.perf_counter() - job.begun)
        if self._read_rows(job):
            self._to_lane(job)
            return
        rows = range(len(job.items))
        pieces = [rows[start : start + PIECE] for start in range(0, len(rows), PIECE)]
        job.split(len(pieces))
        for piece in pieces:
            self.submit(self.pipeline.workers, job, self._decode_piece, piece)

    def _decode_piece(self, job: Job, rows: Sequence[int]) -> None:
        with job.part(then=lambda: self._to_lane(job)):
            self._fill(job, rows)

    def _to_lane(self, job: Job) -> None:
        assert self.pipeline.lanes is not None, "only asked of a device"
        self.submit(self.pipeline.lanes, job, self._compute)

    def _read_rows(self, job: Job) -> bool:
        """Fill the buffer with rows of an array, if that is what the chunk is made of."""
        if job.rows is not None:
            job.buffer.pixels[: len(job.rows)] = job.rows
            return True
        return not self.remote and self._read_at_once(job, job.buffer.pixels)

    def _read_at_once(self, job: Job, out: NDArray[np.uint8]) -> bool:
        begun = time.perf_counter()
        try:
            return job.chunk.read_rows(out)
        finally:
            job.spent("read", time.perf_counter() - begun)

    def _fill(self, job: Job, rows: Sequence[int]) -> None:
        """Read and decode some rows into the buffer; what cannot be is noted."""
        pixels, spec = job.buffer.pixels, self.spec
        reading = decoding = 0.0
        held = 0
        clock = time.perf_counter
        for row in rows:
            if self.stopped:
                return
            begun = clock()
            try:
                raw = job.raw(row)
                read = clock()
                held += _size(raw)
                decode_into(raw, spec, pixels[row], self.max_pixels)
                decoding += clock() - read
                reading += read - begun
            except (ImageError, MemoryError) as error:
                reading += clock() - begun
                job.errors[row] = (
                    error
                    if isinstance(error, ImageError)
                    else ImageError("there is not enough memory to read it")
                )
        if not self.remote:
            self.learn(held, len(rows))
        job.spent("read", reading)
        job.spent("decode", decoding)

    def _compute(self, job: Job) -> None:
        if self.stopped or job.failure is not None:
            self.finish(job, job.failure or EngineError(CLOSED))
            return
        for stage, seconds in job.seconds.items():
            self.telemetry.spent(stage, seconds)
        ids = job.chunk.ids
        skipped = [(ids[row], str(job.errors[row])) for row in sorted(job.errors)]
        columns = self._columns(job, len(ids))
        if skipped:
            ids = [id for row, id in enumerate(ids) if row not in job.errors]
        self.telemetry.ran(columns["loss"], len(skipped))
        self.finish(job, Scores(ids, columns, skipped, job.chunk.start))

    def _columns(self, job: Job, count: int) -> dict[str, NDArray[np.float32]]:
        """The outputs of the rows that were decoded.

        The others are run with them and left out after: what a kernel computes for a row may
        depend in its last bit on how many there are, and a bad image must not change its
        neighbours.
        """
        if len(job.errors) == count:
            return no_columns(self.engine.manifest)
        if job.errors:
            job.buffer.pixels[list(job.errors)] = 0
        with self.telemetry.timed("infer"):
            columns = self.executor.run(job.buffer, count)
        if not job.errors:
            return columns
        good = [row for row in range(count) if row not in job.errors]
        return {name: values[good] for name, values in columns.items()}

    def finish(self, job: Job, outcome: Scores | BaseException) -> None:
        """Give the buffer back, then the result out; of several failures the first counts."""
        with job.lock:
            if job.result.done():
                return
            buffer, job.buffer = job.buffer, None
            if buffer is not None:
                self.executor.release(buffer)
            if isinstance(outcome, BaseException):
                job.result.set_exception(outcome)
            else:
                job.result.set_result(outcome)
        self.left()


def _size(raw: Raw) -> int:
    return len(raw) if isinstance(raw, bytes) else raw.nbytes
