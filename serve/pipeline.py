"""Read → decode → engine, in threads, in order, in bounded memory.

::

                ┌ readers ┐      ┌ workers ─────────────┐
    chunks ─▶ feeder      ├─▶ bytes ─▶ decode into buffer ─▶ run ─▶ scores, in the chunks' order
                └ remote  ┘      └ on the CPU: one thread ┘

On the CPU a worker decodes a batch and runs it itself: nothing is handed over, and no core waits
for another. For a device, workers decode pieces of a batch and two lanes run what is complete.
Pools behind a network have readers that fetch ahead; what they hold is bounded in bytes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import EngineError, ImageError
from lloss.images import Raw, decode_into
from lloss.pools import Chunk

from .engine import Engine
from .job import Job
from .result import Scores, no_columns
from .room import Room
from .telemetry import Telemetry

READERS = 32
"""Threads that fetch from a store: each mostly waits."""

PIECE = 16
"""Images that one thread decodes in a row for a device's batch."""

_AHEAD = 4
"""Batches that may be begun beyond those that are worked on."""

_CLOSED = "the scorer was closed"

_PATIENCE = 0.1
"""Seconds after which a thread that waits looks whether the run was stopped."""

_BYTES_A_LANE = 128 << 20


class Pipeline:
    """Scores chunks of a pool with an engine.

    Its threads start when they are first needed, serve any number of runs at a time, and end with
    :meth:`close`.

    Args:
        engine: what computes.
        telemetry: what to tell of it.
        threads: that decode.
        readers: that fetch from remote pools.
    """

    def __init__(
        self, engine: Engine, telemetry: Telemetry, threads: int, readers: int = READERS
    ) -> None:
        self.engine, self.telemetry = engine, telemetry
        self.spec = engine.manifest.image
        workers = engine.lanes if engine.on_host else threads
        self.workers = ThreadPoolExecutor(workers, "lloss-decode")
        self.lanes = None if engine.on_host else ThreadPoolExecutor(engine.lanes, "lloss-lane")
        self.readers = ThreadPoolExecutor(readers, "lloss-read")
        self.window = 2 * max(workers, engine.lanes) + _AHEAD
        # Small batches in a short line would leave most readers idle.
        self.far_window = max(self.window, -(-2 * readers // engine.batch_size))
        self.at_once = workers
        self.closed = threading.Event()

    def run(self, chunks: Iterable[Chunk], remote: bool = False) -> Iterator[Scores]:
        """Score chunks, each of at most the engine's batch size, in their order.

        Args:
            chunks: of a pool.
            remote: whether reading waits for a network.

        Raises:
            EngineError: a run failed.
            PoolError: the pool could not be read on.
        """
        return _Run(self, remote).through(chunks)

    def close(self) -> None:
        """End the threads; what is under way fails with an :class:`EngineError`."""
        self.closed.set()
        # Nothing is cancelled: each job that was begun ends, gives its buffer back and says so.
        for pool in (self.readers, self.workers, self.lanes):
            if pool is not None:
                pool.shutdown()


class _Run:
    """One pass: a feeder thread begins chunks, the caller takes their scores in order."""

    def __init__(self, pipeline: Pipeline, remote: bool) -> None:
        self.pipeline = pipeline
        self.engine, self.telemetry = pipeline.engine, pipeline.telemetry
        self.spec = pipeline.spec
        self.executor = pipeline.engine.executor
        self.remote = remote
        self.stopped = False
        self.room = Room(
            2 if remote else pipeline.at_once + 1, _BYTES_A_LANE * max(4, pipeline.at_once)
        )
        window = pipeline.far_window if remote else pipeline.window
        self.line: queue.Queue[Future[Scores] | None] = queue.Queue(window)

    def through(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """The scores of all chunks."""
        threading.Thread(target=self._feed, args=(chunks,), name="lloss-feed", daemon=True).start()
        try:
            while (job := self.line.get()) is not None:
                self.telemetry.queued(self.line.qsize())
                yield job.result()
        finally:
            # Perhaps the garbage collector's doing, in any thread, whatever locks that one holds:
            # nothing is waited for here, and no lock taken. All others look at this flag.
            self.stopped = True

    def _feed(self, chunks: Iterable[Chunk]) -> None:
        try:
            for chunk in chunks:
                if self.stopped or not self.room.enter(len(chunk), lambda: self.stopped):
                    return
                job = Job(chunk)
                if not self._offer(job.result):
                    self.room.leave()
                    return
                self._begin(job)
        except BaseException as error:
            failed: Future[Scores] = Future()
            failed.set_exception(error)
            self._offer(failed)
        finally:
            self._offer(None)
            self.telemetry.queued(0)

    def _offer(self, entry: Future[Scores] | None) -> bool:
        """Put it into the line; False when nobody takes from that any more."""
        while not self.stopped:
            try:
                self.line.put(entry, timeout=_PATIENCE)
                return True
            except queue.Full:
                continue
        return False

    def _begin(self, job: Job) -> None:
        try:
            if self.remote:
                self._submit(self.pipeline.readers, job, self._fetch_all)
            else:
                self._decode(job)
        except BaseException as error:  # such as that a device was closed meanwhile
            self._finish(job, error)

    def _submit(
        self, pool: ThreadPoolExecutor, job: Job, step: Callable[..., None], *given: Any
    ) -> None:
        """Do a step of a job in a pool's thread; whatever goes wrong is the job's result."""

        def guarded() -> None:
            try:
                if self.pipeline.closed.is_set():
                    self.stopped = True
                    job.failure = job.failure or EngineError(_CLOSED)
                step(job, *given)
            except BaseException as error:
                self._finish(job, error)

        try:
            pool.submit(guarded)
        except RuntimeError as error:  # the pool of threads was shut down, or cannot grow
            closed = self.pipeline.closed.is_set()
            self._finish(job, EngineError(_CLOSED if closed else f"no thread to be had: {error}"))

    def _fetch_all(self, job: Job) -> None:
        """Rows of an array in one reading, files beside each other."""
        rows = np.empty((len(job.items), self.spec.height, self.spec.width, 3), np.uint8)
        if self._read_at_once(job, rows):
            job.rows = rows
            self.room.learn(rows.nbytes, len(rows))
            self._decode(job)
            return
        job.split(len(job.items))
        for row in range(len(job.items)):
            self._submit(self.pipeline.readers, job, self._fetch, row)

    def _fetch(self, job: Job, row: int) -> None:
        with job.part(then=lambda: self._decode(job)):
            if self.stopped:
                return
            begun = time.perf_counter()
            try:
                raw = job.items[row].read()
                job.fetched[row] = raw
                self.room.learn(_size(raw), 1)
            except ImageError as error:
                job.fetched[row] = error
            job.spent("read", time.perf_counter() - begun)

    def _decode(self, job: Job) -> None:
        if job.failure is not None:
            self._finish(job, job.failure)
            return
        if self.pipeline.lanes is None:
            self._submit(self.pipeline.workers, job, self._decode_and_compute)
            return
        job.buffer = self.executor.buffer()
        self._submit(self.pipeline.workers, job, self._decode_pieces)

    def _decode_and_compute(self, job: Job) -> None:
        """On the CPU: everything in one thread."""
        self.telemetry.spent("queue", time.perf_counter() - job.begun)
        job.buffer = self.executor.buffer()
        if not self._read_rows(job):
            self._fill(job, range(len(job.items)))
        self._compute(job)

    def _decode_pieces(self, job: Job) -> None:
        """For a device: the pieces of a batch beside each other."""
        self.telemetry.spent("queue", time.perf_counter() - job.begun)
        if self._read_rows(job):
            self._to_lane(job)
            return
        rows = range(len(job.items))
        pieces = [rows[start : start + PIECE] for start in range(0, len(rows), PIECE)]
        job.split(len(pieces))
        for piece in pieces:
            self._submit(self.pipeline.workers, job, self._decode_piece, piece)

    def _decode_piece(self, job: Job, rows: Sequence[int]) -> None:
        with job.part(then=lambda: self._to_lane(job)):
            self._fill(job, rows)

    def _to_lane(self, job: Job) -> None:
        assert self.pipeline.lanes is not None, "only asked of a device"
        self._submit(self.pipeline.lanes, job, self._compute)

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
                decode_into(raw, spec, pixels[row])
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
            self.room.learn(held, len(rows))
        job.spent("read", reading)
        job.spent("decode", decoding)

    def _compute(self, job: Job) -> None:
        if self.stopped or job.failure is not None:
            self._finish(job, job.failure or EngineError(_CLOSED))
            return
        for stage, seconds in job.seconds.items():
            self.telemetry.spent(stage, seconds)
        ids = job.chunk.ids
        skipped = [(ids[row], str(job.errors[row])) for row in sorted(job.errors)]
        columns = self._columns(job, len(ids))
        if skipped:
            ids = [id for row, id in enumerate(ids) if row not in job.errors]
        self.telemetry.ran(columns["loss"], len(skipped))
        self._finish(job, Scores(ids, columns, skipped, job.chunk.start))

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

    def _finish(self, job: Job, outcome: Scores | BaseException) -> None:
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
        self.room.leave()


def _size(raw: Raw) -> int:
    return len(raw) if isinstance(raw, bytes) else raw.nbytes
