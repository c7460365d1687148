"""Read, decode and score images in threads: in order, in bounded memory.

::

    chunks ─▶ feeder ─▶ [readers: fetch] ─▶ workers: decode into a buffer ─▶ run ─▶ scores

On the CPU, a worker decodes a batch and runs it itself: no batch is handed over, and no core waits
for another one. For a GPU, workers decode pieces of a batch, and device threads run the complete
batches. Readers fetch from remote pools ahead of the decoding.

Live requests (:meth:`Pipeline.when_free`) go before every pool at each stage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from lloss.serve.scoring.batch.chunk_job import ChunkJob
from lloss.serve.scoring.batch.ordered_results import PoolRun, RunLimits
from lloss.serve.scoring.batch.priority_threads import WorkerPool, WorkerPools
from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.result import Scores, no_columns
from lloss.serve.scoring.telemetry import Telemetry
from numpy.typing import NDArray

from lloss.errors import EngineError, ImageError
from lloss.images.decode import MAX_PIXELS, Raw, decode_into
from lloss.pools import Chunk

READERS = 32
"""Threads that fetch from a store; each of them mostly waits."""

_AHEAD = 4
"""Batches that may be begun beyond those in work."""

_BYTES_PER_WORKER = 128 << 20

_PIECE = 16
"""Images that one thread decodes in a row for a GPU's batch."""

Take = Callable[[], Chunk | None]
"""Returns the images to score now, or None."""


class Pipeline:
    """Scores chunks of images with an engine.

    The threads start when they are first needed, serve any number of runs at a time, and end with
    :meth:`close`; ``shared`` ones decode and compute for several scorers.
    """

    def __init__(
        self,
        engine: Engine,
        telemetry: Telemetry,
        threads: int,
        readers: int = READERS,
        shared: WorkerPools | None = None,
    ) -> None:
        self.engine, self.telemetry = engine, telemetry
        self._spec, self._executor = engine.manifest.image, engine.executor
        self._own = WorkerPools()
        pools = shared or self._own
        count = engine.concurrency if engine.on_host else threads
        self.workers = pools.get(count, "lloss-decode")
        self._device = None if engine.on_host else pools.get(engine.concurrency, "lloss-device")
        self._readers = self._own.get(readers, "lloss-read")
        self._intake = self._own.get(1, "lloss-intake")
        self._live_slots = threading.Semaphore(engine.concurrency)
        size = _BYTES_PER_WORKER * max(4, count)
        window = 2 * max(count, engine.concurrency) + _AHEAD
        # Few small batches would leave most readers idle.
        remote_window = max(window, -(-2 * readers // engine.batch_size))
        self.limits = {
            False: RunLimits(window, count + 1, size),
            True: RunLimits(remote_window, 2, size),
        }
        self._changed = threading.Condition()
        self._unfinished = 0
        self._closed = False

    def run(self, chunks: Iterable[Chunk], remote: bool = False) -> Iterator[Scores]:
        """Score chunks, each of at most the engine's batch size, and yield scores in their order.

        With ``remote``, readers fetch the images ahead.
        """
        begin = self._begin_remote if remote else self._begin_local
        return PoolRun(begin, self.limits[remote], self.telemetry.queued).scores(chunks)

    def when_free(self, take: Take, max_pixels: int = MAX_PIXELS) -> Future[Scores]:
        """Score a batch that is formed when the engine is free for it, before any pool's batch.

        Args:
            take: called once, at that moment, in a thread of the pipeline, which it must not block;
                returns a chunk of at most the engine's batch size, or None. It is not called when
                the pipeline is closed first.
            max_pixels: limit of the size that an encoded image declares.

        Returns:
            A future of the chunk's scores, empty for None. Its exception is that of ``take``, or an
            :class:`EngineError`.
        """
        job = self._new_job(None, None, max_pixels)
        if self._device is None:
            self._submit(self.workers, job, self._score_live, take)
        else:
            self._submit(self._intake, job, self._begin_live, take)
        return job.result

    def close(self) -> None:
        """End the threads; unfinished jobs fail with an :class:`EngineError`."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._unfinished)
        self._own.close()

    # Jobs

    def _new_job(self, run: PoolRun | None, chunk: Chunk | None, max_pixels: int) -> ChunkJob:
        job = ChunkJob(run, chunk, max_pixels)
        with self._changed:
            if self._closed:
                raise _closed_error()
            self._unfinished += 1
        job.result.add_done_callback(self._one_done)
        return job

    def _one_done(self, _: Future[Scores]) -> None:
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()

    def _submit(
        self, pool: WorkerPool, job: ChunkJob, stage: Callable[..., None], *arguments: Any
    ) -> None:
        """Run a stage of a job in a pool of threads."""
        try:
            pool.submit(lambda: self._run_stage(job, stage, *arguments), job.priority)
        except RuntimeError as error:
            reason = _closed_error() if self._closed else EngineError(f"cannot start: {error}")
            self._finish(job, reason)

    def _run_stage(self, job: ChunkJob, stage: Callable[..., None], *arguments: Any) -> None:
        """Run a stage of a job in this thread; an exception becomes the job's result."""
        try:
            if self._closed:
                job.failure = job.failure or _closed_error()
            stage(job, *arguments)
        except BaseException as error:
            self._finish(job, error)

    def _finish(self, job: ChunkJob, outcome: Scores | BaseException) -> None:
        """Release the buffer, then set the result; the first outcome of several counts."""
        with job.lock:
            if job.finished:
                return
            job.finished = True
        if job.buffer is not None:
            self._executor.release(job.buffer)
        if isinstance(outcome, BaseException):
            job.result.set_exception(outcome)
        else:
            job.result.set_result(outcome)

    # Where jobs begin

    def _begin_local(self, run: PoolRun, chunk: Chunk) -> Future[Scores]:
        job = self._new_job(run, chunk, MAX_PIXELS)
        self._run_stage(job, self._decode)
        return job.result

    def _begin_remote(self, run: PoolRun, chunk: Chunk) -> Future[Scores]:
        job = self._new_job(run, chunk, MAX_PIXELS)
        self._submit(self._readers, job, self._fetch)
        return job.result

    def _score_live(self, job: ChunkJob, take: Take) -> None:
        if self._take(job, take):
            self._decode_and_compute(job)

    def _begin_live(self, job: ChunkJob, take: Take) -> None:
        """Wait for a free slot of the device, in a thread of its own.

        One batch runs while the next one is decoded and copied. Images that arrive during that
        time are better added to the batch after that than begun as a third one.
        """
        self._live_slots.acquire()
        job.result.add_done_callback(lambda _: self._live_slots.release())
        job.buffer = self._executor.buffer(urgent=True)
        if self._take(job, take):
            self._submit(self.workers, job, self._decode_pieces)

    def _take(self, job: ChunkJob, take: Take) -> bool:
        if job.failure is not None:
            raise job.failure
        chunk = take()
        if chunk is None or not len(chunk):
            self._finish(job, Scores([], no_columns(self.engine.manifest)))
            return False
        job.chunk = chunk
        return True

    # Stages

    def _fetch(self, job: ChunkJob) -> None:
        """Fetch the rows of an array in one request, and separate files beside each other."""
        rows = np.empty((len(job), self._spec.height, self._spec.width, 3), np.uint8)
        if self._read_rows(job, rows):
            job.rows = rows
            job.observe_size(rows.nbytes, len(rows))
            self._decode(job)
            return
        job.prefetched = True
        job.split(len(job))
        for row in range(len(job)):
            self._submit(self._readers, job, self._fetch_item, row)

    def _fetch_item(self, job: ChunkJob, row: int) -> None:
        with job.part(then=lambda: self._decode(job)):
            if job.abandoned:
                return
            begun = time.perf_counter()
            try:
                raw = job.chunk.items[row].read()
                job.fetched[row] = raw
                job.observe_size(_size(raw), 1)
            except ImageError as error:
                job.fetched[row] = error
            job.spent("read", time.perf_counter() - begun)

    def _decode(self, job: ChunkJob) -> None:
        """Hand the job to the threads that decode."""
        if job.failure is not None:
            self._finish(job, job.failure)
        elif self._device is None:
            self._submit(self.workers, job, self._decode_and_compute)
        else:
            job.buffer = self._executor.buffer()
            self._submit(self.workers, job, self._decode_pieces)

    def _decode_and_compute(self, job: ChunkJob) -> None:
        self.telemetry.spent("queue", time.perf_counter() - job.begun)
        job.buffer = self._executor.buffer()
        if not self._copy_rows(job):
            self._fill(job, range(len(job)))
        self._compute(job)

    def _decode_pieces(self, job: ChunkJob) -> None:
        assert self._device is not None, "pieces are for a device"
        self.telemetry.spent("queue", time.perf_counter() - job.begun)
        if self._copy_rows(job):
            self._submit(self._device, job, self._compute)
            return
        rows = range(len(job))
        pieces = [rows[start : start + _PIECE] for start in range(0, len(rows), _PIECE)]
        job.split(len(pieces))
        for piece in pieces:
            self._submit(self.workers, job, self._decode_piece, piece)

    def _decode_piece(self, job: ChunkJob, rows: Sequence[int]) -> None:
        assert self._device is not None, "pieces are for a device"
        device = self._device
        with job.part(then=lambda: self._submit(device, job, self._compute)):
            self._fill(job, rows)

    def _copy_rows(self, job: ChunkJob) -> bool:
        """Fill the buffer at once, where the chunk is rows of an array."""
        if job.rows is not None:
            job.buffer.pixels[: len(job.rows)] = job.rows
            return True
        return not job.prefetched and self._read_rows(job, job.buffer.pixels)

    def _read_rows(self, job: ChunkJob, out: NDArray[np.uint8]) -> bool:
        begun = time.perf_counter()
        try:
            return job.chunk.read_rows(out)
        finally:
            job.spent("read", time.perf_counter() - begun)

    def _fill(self, job: ChunkJob, rows: Sequence[int]) -> None:
        """Read and decode some rows into the buffer, and note the images that fail."""
        pixels, spec, clock = job.buffer.pixels, self._spec, time.perf_counter
        reading = decoding = 0.0
        size = 0
        for row in rows:
            if job.abandoned:
                return
            begun = clock()
            try:
                raw = job.raw(row)
                read = clock()
                size += _size(raw)
                decode_into(raw, spec, pixels[row], job.max_pixels)
                decoding += clock() - read
                reading += read - begun
            except ImageError as error:
                reading += clock() - begun
                job.errors[row] = error
            except MemoryError:
                job.errors[row] = ImageError("there is not enough memory to read it")
        if not job.prefetched:
            job.observe_size(size, len(rows))
        job.spent("read", reading)
        job.spent("decode", decoding)

    def _compute(self, job: ChunkJob) -> None:
        if job.abandoned:
            self._finish(job, job.failure or _closed_error())
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

    def _columns(self, job: ChunkJob, count: int) -> dict[str, NDArray[np.float32]]:
        """Compute the outputs of the decoded rows.

        Rows that failed are run as black images and left out afterwards: the last bit of what a
        kernel computes for a row may depend on the number of rows, and a bad image must not change
        the scores of its neighbours.
        """
        if len(job.errors) == count:
            return no_columns(self.engine.manifest)
        if job.errors:
            job.buffer.pixels[list(job.errors)] = 0
        with self.telemetry.timed("infer"):
            columns = self._executor.run(job.buffer, count)
        if not job.errors:
            return columns
        good = [row for row in range(count) if row not in job.errors]
        return {name: values[good] for name, values in columns.items()}


def _closed_error() -> EngineError:
    return EngineError("the scorer was closed")


def _size(raw: Raw) -> int:
    return len(raw) if isinstance(raw, bytes) else raw.nbytes
