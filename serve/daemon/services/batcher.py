"""Requests of few images become batches of many.

Whenever a lane is free it takes what is queued, up to a batch; nothing waits for more to come::

    event loop   score() ─▶ queue ─▶ …                          ─▶ answers, once a batch
    lane                       └▶ take() ─▶ decode, compute ─▶ done()

What nobody waits for any more is dropped from the queue; see :class:`.line.Line` for who is next.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.batch_parts import (
    Answer,
    Batch,
    Images,
    Items,
    Part,
    Request,
    Rows,
    deliver,
)
from lloss.serve.daemon.services.request_queue import Line
from lloss.serve.daemon.settings import Limits
from lloss.serve.scoring.result import Scores, no_columns
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import EngineError, LlossError
from lloss.pools import Chunk

_LEARNING = 0.2
"""Share of the newest batch in the measured rate."""

_WORTH_SECONDS = 0.002
"""Work for less time than this is not shared between lanes."""

_LONGEST = 60.0
"""Seconds to wait that a refused client is told at most: an estimate beyond is worth nothing."""


class ClosedError(RequestError):
    """The batcher takes no more."""

    def __init__(self) -> None:
        super().__init__(503, "the server is ending or exchanging its model; try again", 1.0)


class Batcher:
    """A bounded queue before a scorer.

    Args:
        scorer: that batches are put to.
        limits: of the queue and of an encoded image's pixels.
        metrics: to tell of it.

    Attributes:
        batches: how many were run.
    """

    def __init__(self, scorer: Scorer, limits: Limits, metrics: DaemonMetrics) -> None:
        self._scorer, self._limits, self._metrics = scorer, limits, metrics
        image = scorer.manifest.image
        self._shape = (image.height, image.width, 3)
        self._lanes, self._on_host = scorer.engine.concurrency, scorer.engine.on_host
        self._changed = threading.Condition()
        self._line = Line(scorer.batch_size)
        self._asked = 0  # takes that were not begun yet
        self._running = 0  # batches
        self._rate = 0.0  # images a second of one lane
        self._closed = False
        self.batches = 0

    async def score(self, images: Images, seconds: float) -> Answer:
        """Score the images of one request.

        Args:
            images: uint8 [N, H, W, 3] of any H and W, or N encoded images or arrays.
            seconds: within which the answer must be there.

        Raises:
            RequestError: 413 more images than the queue ever holds; 429 the queue is full; 503 it
                was closed; 504 it took longer than ``seconds``.
            EngineError: the engine failed.
        """
        loop = asyncio.get_running_loop()
        request = Request(images, loop, time.perf_counter() + seconds)
        self._enqueue(request)
        timer = loop.call_later(seconds, self._expire, request, seconds)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._drop(request)
            self._metrics.refused("cancelled", request.count)
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """Refuse new requests, finish what is queued, and return when it is done."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not (self._line or self._asked or self._running))

    def _enqueue(self, request: Request) -> None:
        most = self._limits.queue_images
        if request.count > most:
            raise RequestError(
                413, f"{request.count} images in one request: give at most {most} and send several"
            )
        with self._changed:
            if self._closed:
                raise ClosedError  # counted by who cannot turn to another
            if self._line.images + request.count > most:
                self._metrics.refused("queue_full", request.count)
                wait = self._wait()
                raise RequestError(
                    429,
                    f"{self._line.images} images wait, of at most {most}: try again later",
                    wait,
                )
            if not request.count:
                request.future.set_result(Answer(no_columns(self._scorer.manifest), {}))
                return
            self._line.add(request)
            self._metrics.queued(self._line.images)
            self._ask()

    def _wait(self) -> float:
        """Seconds until what is queued may be through, from what was measured."""
        rate = self._rate * self._lanes
        return min(_LONGEST, max(1.0, self._line.images / rate if rate else 1.0))

    def _ask(self) -> None:
        """Ask for one lane more, if there is something for it to do; the lock is held."""
        if not self._line or self._asked >= self._lanes:
            return
        self._asked += 1
        turn = _Turn(self, self._shape)
        try:
            future = self._scorer.when_free(turn.take, self._limits.image_pixels)
        except LlossError as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(turn.done)

    def take(self) -> list[Part]:
        """The parts for a lane that is free now; may be none.

        On a CPU a batch takes about as long as its images one by one: a lane that took all that
        waits would keep the first of them waiting for the last, and leave nothing to those that
        are free a moment later (``benchmarks/queueing.py``). Elsewhere a batch of many costs
        little more than one of few.
        """
        with self._changed:
            self._asked -= 1
            waiting = self._line.images
            sharing = self._lanes if self._on_host else 1
            share = max(-(-waiting // sharing), math.ceil(self._rate * _WORTH_SECONDS))
            # Of one whose time is over the loop, which is late, will say so.
            parts = self._line.take(min(self._scorer.batch_size, share), time.perf_counter())
            self._metrics.queued(self._line.images)
            if parts:
                self._running += 1
                self._ask()
            else:
                self._changed.notify_all()
        return parts

    def begun(self, parts: Sequence[Part]) -> None:
        """Count how long those waited whose first images these are."""
        now = time.perf_counter()
        for part in parts:
            if not part.start:
                self._metrics.waited(now - part.request.arrived)

    def done(self, parts: Sequence[Part], scores: Scores | BaseException, seconds: float) -> None:
        """Hand the rows of a batch to their requests; in a lane's thread."""
        if isinstance(scores, Scores):
            self._learn(scores, seconds)
            rows = Rows.of(scores)
            ended = [part.request for part in parts if part.request.filled(part, rows)]
        else:
            ended = [part.request for part in parts]
            for request in ended:
                request.fail(scores)
                self._drop(request)
        deliver(ended)
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _learn(self, scores: Scores, seconds: float) -> None:
        rate = scores.seen / max(seconds, 1e-6)
        self._rate += (rate - self._rate) * (_LEARNING if self._rate else 1)
        self.batches += 1
        if len(scores):
            self._metrics.served(scores.loss, self._scorer.engine.sha256)

    def broken(self, error: BaseException) -> None:
        """No lane will come: whoever waits is told."""
        with self._changed:
            self._asked -= 1
            failed = list(self._line)
            for request in failed:
                self._line.remove(request)
                request.fail(error)
            self._metrics.queued(self._line.images)
            self._changed.notify_all()
        deliver(failed)

    def _expire(self, request: Request, seconds: float) -> None:
        if not request.future.done():
            self._drop(request)
            self._metrics.refused("deadline", request.count)
            request.future.set_exception(
                RequestError(504, f"not scored within {seconds:g} s; allow more or send fewer")
            )

    def _drop(self, request: Request) -> None:
        """Take it out of the queue, if it is there."""
        with self._changed:
            if self._line.remove(request):
                self._metrics.queued(self._line.images)
                self._changed.notify_all()


class _Turn:
    """A lane that was asked for, and what it took."""

    def __init__(self, batcher: Batcher, shape: tuple[int, ...]) -> None:
        self._batcher, self._shape = batcher, shape
        self._begun: float | None = None
        self._parts: Sequence[Part] = ()

    def take(self) -> Chunk | None:
        """See :data:`..pipeline.Take`."""
        self._begun = time.perf_counter()
        self._parts = parts = self._batcher.take()
        self._batcher.begun(parts)
        return Batch(0, Items(parts), parts, self._shape) if parts else None

    def done(self, future: Future[Scores]) -> None:
        """The lane is done with it."""
        error = future.exception()
        if self._begun is None:
            self._batcher.broken(error or EngineError("no batch was asked for"))
        elif self._parts:
            seconds = time.perf_counter() - self._begun
            self._batcher.done(self._parts, error or future.result(), seconds)
