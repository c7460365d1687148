"""Read → decode → engine, in threads, in order, in bounded memory.

::

                ┌ readers ┐      ┌ workers ─────────────┐
    chunks ─▶ feeder      ├─▶ bytes ─▶ decode into buffer ─▶ run ─▶ scores, in the chunks' order
                └ remote  ┘      └ on the CPU: one thread ┘

On the CPU a worker decodes a batch and runs it itself: nothing is handed over, and no core waits
for another. For a device, workers decode pieces of a batch and two lanes run what is complete.
Pools behind a network have readers that fetch ahead; what they hold is bounded in bytes.

Images that somebody waits for (:meth:`Pipeline.when_free`) go before every pool's at each step.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from lloss.serve.scoring.batch.chunk import Job
from lloss.serve.scoring.batch.memory_limit import Room
from lloss.serve.scoring.batch.stages import CLOSED, Steps
from lloss.serve.scoring.batch.worker_pool import LIVE, Team, Threads, Workers
from lloss.serve.scoring.engine.session import Engine
from lloss.serve.scoring.result import Scores, no_columns
from lloss.serve.scoring.telemetry import Telemetry

from lloss.errors import EngineError
from lloss.images.decode import MAX_PIXELS
from lloss.pools import Chunk

READERS = 32
"""Threads that fetch from a store: each mostly waits."""

_AHEAD = 4
"""Batches that may be begun beyond those that are worked on."""

_PATIENCE = 0.1
"""Seconds after which a thread that waits looks whether the run was stopped."""

_BYTES_A_LANE = 128 << 20

Take = Callable[[int], Chunk | None]
"""Gives what is to be scored now, if anything is, told how many other lanes are idle."""


class Pipeline:
    """Scores chunks of a pool with an engine.

    Its threads start when they are first needed, serve any number of runs at a time, and end with
    :meth:`close`.

    Args:
        engine: what computes.
        telemetry: what to tell of it.
        threads: that decode.
        readers: that fetch from remote pools.
        team: whose threads decode and compute; by default they are its own.
    """

    def __init__(
        self,
        engine: Engine,
        telemetry: Telemetry,
        threads: int,
        readers: int = READERS,
        team: Team | None = None,
    ) -> None:
        self.engine, self.telemetry = engine, telemetry
        self.spec = engine.manifest.image
        workers = engine.lanes if engine.on_host else threads
        made: Callable[[int, str], Threads] = team.share if team else Workers
        self.workers = made(workers, "lloss-decode")
        self.lanes = None if engine.on_host else made(engine.lanes, "lloss-lane")
        self.readers = Workers(readers, "lloss-read")
        self.intake = Workers(1, "lloss-intake")
        self.slots = threading.Semaphore(engine.lanes)
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

    def when_free(self, take: Take, max_pixels: int = MAX_PIXELS) -> Future[Scores]:
        """Score what is there once a lane is free, before anything of a pool.

        A pool's batch that is worked on is not interrupted.

        Args:
            take: called once, at that moment, in a thread of the pipeline's, which it must not
                hold up; gives a chunk of at most the engine's batch size, or None. Not called
                when the pipeline is closed before.
            max_pixels: that an encoded image may declare.

        Returns:
            The chunk's scores, an image's own failure among ``skipped``; empty ones for None.
            Its exception is what ``take`` raised, or an :class:`EngineError`.
        """
        return _Live(self, max_pixels).begin(take)

    def close(self) -> None:
        """End the threads; what is under way fails with an :class:`EngineError`."""
        self.closed.set()
        # Nothing is cancelled: each job that was begun ends, gives its buffer back and says so.
        for pool in (self.readers, self.intake, self.workers, self.lanes):
            if pool is not None:
                pool.shutdown()


class _Run(Steps):
    """One pass: a feeder thread begins chunks, the caller takes their scores in order."""

    def __init__(self, pipeline: Pipeline, remote: bool) -> None:
        super().__init__(pipeline)
        self.remote = remote
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
                self.submit(self.pipeline.readers, job, self.fetch_all)
            else:
                self.decode(job)
        except BaseException as error:  # such as that a device was closed meanwhile
            self.finish(job, error)

    def learn(self, size: int, images: int) -> None:
        """See :meth:`.room.Room.learn`."""
        self.room.learn(size, images)

    def left(self) -> None:
        """There is room for another."""
        self.room.leave()


class _Live(Steps):
    """A batch that is formed when there is a lane for it."""

    priority = LIVE

    def __init__(self, pipeline: Pipeline, max_pixels: int) -> None:
        super().__init__(pipeline)
        self.max_pixels = max_pixels
        self.begun = time.perf_counter()
        self.result: Future[Scores] = Future()
        self.lane = False

    def begin(self, take: Take) -> Future[Scores]:
        """See :meth:`Pipeline.when_free`."""
        on_host = self.pipeline.lanes is None
        workers = self.pipeline.workers if on_host else self.pipeline.intake
        turn = self._turn_of_host if on_host else self._turn_of_device

        def guarded() -> None:
            try:
                if self.pipeline.closed.is_set():
                    raise EngineError(CLOSED)
                turn(take)
            except BaseException as error:
                self._fail(error)

        try:
            workers.submit(guarded, LIVE)
        except RuntimeError as error:
            closed = self.pipeline.closed.is_set()
            self._fail(EngineError(CLOSED if closed else f"no thread to be had: {error}"))
        return self.result

    def _turn_of_host(self, take: Take) -> None:
        job = self._job(take(self.pipeline.workers.idle))
        if job is not None:
            try:
                self.decode_and_compute(job)
            except BaseException as error:
                self.finish(job, error)

    def _turn_of_device(self, take: Take) -> None:
        """In a thread of its own: one that decodes, and waits for a buffer, might wait for itself.

        One lane works on what is there while the other's batch is decoded and copied; what comes
        in meanwhile is better added to the next than begun as a third.
        """
        self.pipeline.slots.acquire()
        self.lane = True
        buffer = self.executor.buffer(urgent=True)
        try:
            job = self._job(take(0))
        except BaseException:
            self.executor.release(buffer)
            raise
        if job is None:
            self.executor.release(buffer)
            self.left()
            return
        job.buffer = buffer
        self.submit(self.pipeline.workers, job, self.decode_pieces)

    def _job(self, chunk: Chunk | None) -> Job | None:
        if chunk is not None and len(chunk):
            job = Job(chunk, self.result)
            job.begun = self.begun
            return job
        self.result.set_result(Scores([], no_columns(self.engine.manifest)))
        return None

    def _fail(self, error: BaseException) -> None:
        self.left()
        self.result.set_exception(error)

    def left(self) -> None:
        """The lane is free for another."""
        if self.lane:
            self.lane = False
            self.pipeline.slots.release()
