"""Read, decode and score images in threads: in order, in bounded memory.

A chunk of images stays with one thread, its lane, until it is scored::

    chunks ─▶ [readers: fetch] ─▶ lane: take a buffer ─ decode into it ─ run ─▶ scores

On the CPU a lane holds a core from the first step to the last: no batch is handed over, and no core
waits for another one. For a GPU a lane lets several threads decode pieces of its batch. Readers
fetch from remote pools ahead of the decoding.

Live requests (:meth:`Pipeline.when_free`) have lanes of their own, and get each core, buffer and
turn on the GPU before any pool.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from lloss.serve.scoring.batch.slots import LIVE, POOL, ComputeSlots
from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.engine.executor import Buffer
from lloss.serve.scoring.result import Scores, no_columns
from lloss.serve.scoring.telemetry import Telemetry
from numpy.typing import NDArray

from lloss.errors import EngineError, ImageError
from lloss.images.decode import MAX_PIXELS, Raw, decode_into
from lloss.pools import Chunk, Item

T = TypeVar("T")

READERS = 32
"""Threads that fetch from a store; each of them mostly waits."""

_AHEAD = 4
"""Batches that may be under way beyond two per lane."""

_BYTES_PER_LANE = 128 << 20
"""Raw images that chunks under way may hold, beyond the fewest chunks that keep lanes busy."""

_PIECE = 16
"""Images that one thread decodes in a row for a GPU's batch."""

Take = Callable[[], Chunk | None]
"""Returns the images to score now, or None."""

Fetched: TypeAlias = "NDArray[np.uint8] | list[Future[Raw]] | None"
"""What readers fetched of a chunk: all rows, one image each, or nothing."""


@dataclass
class _Run:
    """One pass over a pool."""

    remote: bool = False
    left: bool = False  # its consumer left it
    # Raw images in a whole batch, by the newest scored chunk: an estimate for others
    chunk_bytes: float = math.inf


class _Work:
    """The work on one chunk."""

    def __init__(self, chunk: Chunk, run: _Run, priority: int, max_pixels: int) -> None:
        self.chunk, self.run, self.priority, self.max_pixels = chunk, run, priority, max_pixels
        self.begun = time.perf_counter()
        self.errors: dict[int, str] = {}  # why an image is skipped, by row
        self.size = 0  # bytes of the raw images
        self.seconds = {"read": 0.0, "decode": 0.0}  # thread time
        self._lock = threading.Lock()

    def spent(self, reading: float, decoding: float = 0.0, size: int = 0) -> None:
        """Add thread time, and the bytes that were read in it."""
        with self._lock:
            self.seconds["read"] += reading
            self.seconds["decode"] += decoding
            self.size += size


class Pipeline:
    """Scores chunks of images with an engine.

    The threads start when they are first needed, serve any number of runs at a time, and end with
    :meth:`close` or when this object is garbage-collected. Scorers may share ``slots``.
    """

    def __init__(
        self,
        engine: Engine,
        telemetry: Telemetry,
        threads: int,
        readers: int = READERS,
        slots: ComputeSlots | None = None,
    ) -> None:
        self.engine, self.telemetry = engine, telemetry
        self._spec = engine.manifest.image
        self._executor = engine.executor
        self.slots = slots or ComputeSlots(threads)
        # While two batches run on a GPU, a third one is decoded.
        lanes = engine.concurrency + (0 if engine.on_host else 1)
        self._pool_lanes = ThreadPoolExecutor(lanes, "lloss-pool")
        self._live_lanes = ThreadPoolExecutor(engine.concurrency, "lloss-live")
        self._decoders = [ThreadPoolExecutor(threads, "lloss-decode") for _ in (LIVE, POOL)]
        self._readers = ThreadPoolExecutor(readers, "lloss-read")
        self._bytes = _BYTES_PER_LANE * max(4, lanes)
        self._least = {False: lanes + 1, True: 2}  # by whether the pool is remote
        # Few small batches would leave most readers idle.
        self.window = max(2 * max(lanes, threads) + _AHEAD, -(-2 * readers // engine.batch_size))
        self._closed = False

    def run(self, chunks: Iterable[Chunk], remote: bool = False) -> Iterator[Scores]:
        """Score chunks, each of at most the engine's batch size, and yield scores in their order.

        With ``remote``, readers fetch the images ahead.
        """
        run = _Run(remote)
        under_way: deque[Future[Scores]] = deque()
        try:
            for scores in self._begun(chunks, run):
                under_way.append(scores)
                while self._is_full(run, len(under_way)):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            # The garbage collector may run this in any thread, whatever locks that thread holds:
            # so it takes no lock and waits for nothing. All others look at this flag.
            run.left = True

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
        return self._submit(self._live_lanes, self._score_live, take, max_pixels)

    def close(self) -> None:
        """End the threads; unfinished work fails with an :class:`EngineError`."""
        self._closed = True
        for executor in (self._pool_lanes, self._live_lanes, *self._decoders, self._readers):
            executor.shutdown()

    # Runs

    def _begun(self, chunks: Iterable[Chunk], run: _Run) -> Iterator[Future[Scores]]:
        """Begin the chunks one by one; an error of their listing comes after the last one."""
        try:
            for chunk in chunks:
                work, fetched = _Work(chunk, run, POOL, MAX_PIXELS), None
                if run.remote:
                    fetched = self._submit(self._readers, self._fetch, work)
                scores = self._submit(self._pool_lanes, self._score_chunk, work, fetched)
                self.telemetry.queued(1)
                yield scores
        except Exception as error:
            failed: Future[Scores] = Future()
            failed.set_exception(error)
            yield failed

    def _is_full(self, run: _Run, under_way: int) -> bool:
        """Whether no further chunk may begin."""
        if under_way < self._least[run.remote]:
            return False
        return under_way >= self.window or (under_way + 1) * run.chunk_bytes > self._bytes

    def _submit(
        self, executor: ThreadPoolExecutor, task: Callable[..., T], *arguments: Any
    ) -> Future[T]:
        done: Future[T] = Future()

        def run() -> None:
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(task(*arguments))
                except BaseException as error:
                    done.set_exception(error)

        try:
            executor.submit(run)
        except RuntimeError as error:
            # An executor that can start no thread keeps the task, and would run it later.
            if done.cancel():
                reason = _closed_error() if self._closed else EngineError(f"cannot start: {error}")
                raise reason from error
        return done

    def _check_wanted(self, run: _Run) -> None:
        """Raise an EngineError where nobody waits for the scores any more."""
        if self._closed or run.left:
            raise _closed_error()

    # Readers

    def _fetch(self, work: _Work) -> Fetched:
        """Fetch the rows of an array in one request, and separate files beside each other."""
        self._check_wanted(work.run)
        rows = np.empty((len(work.chunk), self._spec.height, self._spec.width, 3), np.uint8)
        if self._read_rows(work, rows):
            return rows
        items = work.chunk.items
        return [self._submit(self._readers, self._fetch_item, work, item) for item in items]

    def _fetch_item(self, work: _Work, item: Item) -> Raw:
        self._check_wanted(work.run)
        begun = time.perf_counter()
        try:
            return item.read()
        finally:
            work.spent(time.perf_counter() - begun)

    def _read_rows(self, work: _Work, out: NDArray[np.uint8]) -> bool:
        begun = time.perf_counter()
        done = work.chunk.read_rows(out)
        work.spent(time.perf_counter() - begun, size=out.nbytes if done else 0)
        return done

    # Lanes

    def _score_chunk(self, work: _Work, fetching: Future[Fetched] | None) -> Scores:
        try:
            self._check_wanted(work.run)
            fetched = fetching.result() if fetching else None
            if isinstance(fetched, list):
                wait(fetched)  # before a core is taken
            with self._buffer(POOL) as buffer:
                scores = self._score(work, buffer, fetched)
            work.run.chunk_bytes = work.size / max(len(work.chunk), 1) * self.engine.batch_size
            return scores
        finally:
            self.telemetry.queued(-1)

    def _score_live(self, take: Take, max_pixels: int) -> Scores:
        run = _Run()
        with self._buffer(LIVE) as buffer:
            self._check_wanted(run)
            chunk = take()
            if chunk is None or not len(chunk):
                return Scores([], no_columns(self.engine.manifest))
            return self._score(_Work(chunk, run, LIVE, max_pixels), buffer)

    @contextlib.contextmanager
    def _buffer(self, priority: int) -> Iterator[Buffer]:
        """Hold a buffer, and on the CPU a core."""
        core = self.slots.cores.held(priority)
        with core if self.engine.on_host else contextlib.nullcontext():
            urgent = priority == LIVE and not self.engine.on_host
            buffer = self._executor.buffer(urgent)
            try:
                yield buffer
            finally:
                self._executor.release(buffer)

    def _score(self, work: _Work, buffer: Buffer, fetched: Fetched = None) -> Scores:
        """Decode a chunk into a buffer, and run it."""
        self.telemetry.spent("queue", time.perf_counter() - work.begun)
        self._decode(work, buffer.pixels, fetched)
        self._check_wanted(work.run)
        for stage, seconds in work.seconds.items():
            self.telemetry.spent(stage, seconds)
        ids = work.chunk.ids
        skipped = [(ids[row], work.errors[row]) for row in sorted(work.errors)]
        columns = self._columns(work, buffer, len(ids))
        if skipped:
            ids = [id for row, id in enumerate(ids) if row not in work.errors]
        self.telemetry.ran(columns["loss"], len(skipped))
        return Scores(ids, columns, skipped, work.chunk.start)

    def _decode(self, work: _Work, pixels: NDArray[np.uint8], fetched: Fetched) -> None:
        count = len(work.chunk)
        if isinstance(fetched, np.ndarray):
            pixels[:count] = fetched
        elif fetched is None and self._read_rows(work, pixels):
            return
        elif self.engine.on_host:
            self._fill(work, pixels, range(count), fetched)
        else:
            pieces: list[Future[None]] = []
            try:
                for at in range(0, count, _PIECE):
                    rows = range(at, min(at + _PIECE, count))
                    decoders = self._decoders[work.priority]
                    pieces.append(
                        self._submit(decoders, self._fill_piece, work, pixels, rows, fetched)
                    )
            finally:
                wait(pieces)  # also after a failure: all write to the same buffer
            for piece in pieces:
                piece.result()

    def _fill_piece(self, work: _Work, *arguments: Any) -> None:
        with self.slots.cores.held(work.priority):
            self._fill(work, *arguments)

    def _fill(
        self, work: _Work, pixels: NDArray[np.uint8], rows: range, fetched: list[Future[Raw]] | None
    ) -> None:
        """Read and decode some rows into the buffer, and note the images that fail."""
        clock = time.perf_counter
        reading = decoding = 0.0
        size = 0
        for row in rows:
            self._check_wanted(work.run)
            begun = read = clock()
            try:
                raw = fetched[row].result() if fetched else work.chunk.items[row].read()
                read = clock()
                size += len(raw) if isinstance(raw, bytes) else raw.nbytes
                decode_into(raw, self._spec, pixels[row], work.max_pixels)
            except ImageError as error:
                work.errors[row] = str(error)
                error.__traceback__ = None  # it holds this frame, and so all images of the chunk
            except MemoryError as error:
                work.errors[row] = "there is not enough memory to read it"
                error.__traceback__ = None
            reading += read - begun
            decoding += clock() - read
        work.spent(reading, decoding, size)

    def _columns(self, work: _Work, buffer: Buffer, count: int) -> dict[str, NDArray[np.float32]]:
        """Compute the outputs of the decoded rows.

        Rows that failed are run as black images and left out afterwards: the last bit of what a
        kernel computes for a row may depend on the number of rows, and a bad image must not change
        the scores of its neighbours.
        """
        if len(work.errors) == count:
            return no_columns(self.engine.manifest)
        if work.errors:
            buffer.pixels[list(work.errors)] = 0
        device = self.slots.device.held(work.priority)
        turn = contextlib.nullcontext() if self.engine.on_host else device
        with turn, self.telemetry.timed("infer"):
            columns = self._executor.run(buffer, count)
        if not work.errors:
            return columns
        good = [row for row in range(count) if row not in work.errors]
        return {name: values[good] for name, values in columns.items()}


def _closed_error() -> EngineError:
    return EngineError("the scorer was closed")
