"""Form batches from the requests that wait.

A lane takes what waits, up to a batch, as soon as it is free; no request waits for more to come::

    event loop   score() ─▶ queue ─▶ …                          ─▶ answers, once per batch
    lane                       └▶ _take() ─▶ decode, compute ─▶ _done()

A request that is cancelled or expires leaves the queue.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.request_queue import (
    Answer,
    Images,
    Part,
    RequestBatch,
    RequestQueue,
    ScoringRequest,
    settle,
)
from lloss.serve.daemon.settings import Limits
from lloss.serve.scoring.result import Scores, no_columns
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import EngineError, LlossError
from lloss.pools import Chunk

_SMOOTHING = 0.2
"""Weight of the newest batch in the measured rate."""

_MIN_SHARE_SECONDS = 0.002
"""Less work than this is not divided between lanes."""

_MAX_RETRY_SECONDS = 60.0


class ClosedError(RequestError):
    """The batcher accepts no more requests."""

    def __init__(self) -> None:
        super().__init__(503, "the server is shutting down or swapping its model; try again", 1.0)


class Batcher:
    """A bounded queue before a scorer."""

    def __init__(self, scorer: Scorer, limits: Limits, metrics: DaemonMetrics) -> None:
        self._scorer, self._limits, self._metrics = scorer, limits, metrics
        image = scorer.manifest.image
        self._shape = (image.height, image.width, 3)
        self._lanes, self._on_host = scorer.engine.concurrency, scorer.engine.on_host
        self._changed = threading.Condition()
        self._queue = RequestQueue(scorer.batch_size)
        self._requested = 0  # lanes that have not come yet
        self._running = 0  # batches
        self._rate = 0.0  # images per second of one lane
        self._closed = False

    async def score(self, images: Images, seconds: float) -> Answer:
        """Score uint8 [N, H, W, 3] of any H and W, or N encoded images or arrays, in time.

        Raises RequestError: 413 more images than the queue can hold; 429 the queue is full; 503 it
        is closed; 504 the time limit is over.
        """
        loop = asyncio.get_running_loop()
        request = ScoringRequest(images, loop)
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
        """Refuse new requests, finish those that wait, and return then."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not (self._queue or self._requested or self._running))

    def _enqueue(self, request: ScoringRequest) -> None:
        most = self._limits.queue_images
        if request.count > most:
            raise RequestError(
                413, f"{request.count} images in one request: give at most {most} and send several"
            )
        with self._changed:
            if self._closed:
                raise ClosedError  # the caller counts it, if no other batcher serves
            waiting = self._queue.images
            if waiting + request.count > most:
                self._metrics.refused("queue_full", request.count)
                raise RequestError(
                    429, f"{waiting} of at most {most} images wait: try again later", self._wait()
                )
            if not request.count:
                request.future.set_result(Answer(no_columns(self._scorer.manifest), {}))
                return
            self._queue.add(request)
            self._metrics.queued(self._queue.images)
            self._request_lane()

    def _wait(self) -> float:
        """Estimated seconds until the queue is empty."""
        rate = self._rate * self._lanes
        return min(_MAX_RETRY_SECONDS, max(1.0, self._queue.images / rate if rate else 1.0))

    def _request_lane(self) -> None:
        """Request one more lane, if images wait; the lock is held."""
        if not self._queue or self._requested >= self._lanes:
            return
        self._requested += 1
        turn = _Turn()
        try:
            future = self._scorer.when_free(lambda: self._take(turn), self._limits.image_pixels)
        except LlossError as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda future: self._done(turn, future))

    def _take(self, turn: _Turn) -> Chunk | None:
        """Images for a lane that is free now; None if none waits any more.

        On a CPU a batch takes about as long as its images one by one: a lane that took all would
        delay the first until the last, and leave nothing to lanes that are free a moment later
        (``benchmarks/queueing.py``). On a GPU a large batch costs little more than a small one.
        """
        with self._changed:
            turn.began = now = time.perf_counter()
            self._requested -= 1
            lanes = self._lanes if self._on_host else 1
            share = max(-(-self._queue.images // lanes), math.ceil(self._rate * _MIN_SHARE_SECONDS))
            turn.parts = self._queue.take(min(self._scorer.batch_size, share))
            self._metrics.queued(self._queue.images)
            if turn.parts:
                self._running += 1
                self._request_lane()
            else:
                self._changed.notify_all()
        for part in turn.parts:
            if not part.start:
                self._metrics.waited(now - part.request.arrived)
        return RequestBatch.of(turn.parts, self._shape) if turn.parts else None

    def _done(self, turn: _Turn, future: Future[Scores]) -> None:
        """Return the rows of a batch to their requests, or its error; in a lane's thread."""
        error = future.exception()
        if not turn.began:
            self._fail_all(error or EngineError("no batch was requested"))
            return
        if not turn.parts:
            return
        if error is None:
            scores = future.result()
            self._count(scores, time.perf_counter() - turn.began)
            answer = Answer.of(scores)
            ended = [part.request for part in turn.parts if part.request.fill(part, answer)]
        else:
            ended = [part.request for part in turn.parts]
            for request in ended:
                request.fail(error)
                self._drop(request)
        settle(ended)
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _count(self, scores: Scores, seconds: float) -> None:
        rate = scores.seen / max(seconds, 1e-6)
        self._rate += (rate - self._rate) * (_SMOOTHING if self._rate else 1)
        if len(scores):
            self._metrics.served(scores.loss, self._scorer.engine.sha256)

    def _fail_all(self, error: BaseException) -> None:
        """Fail all requests that wait, because no lane will come."""
        with self._changed:
            self._requested -= 1
            failed = list(self._queue)
            for request in failed:
                self._queue.remove(request)
                request.fail(error)
            self._metrics.queued(self._queue.images)
            self._changed.notify_all()
        settle(failed)

    def _expire(self, request: ScoringRequest, seconds: float) -> None:
        if not request.future.done():
            self._drop(request)
            self._metrics.refused("deadline", request.count)
            request.future.set_exception(
                RequestError(504, f"not scored within {seconds:g} s; allow more or send fewer")
            )

    def _drop(self, request: ScoringRequest) -> None:
        """Remove a request from the queue, if it waits."""
        with self._changed:
            if self._queue.remove(request):
                self._metrics.queued(self._queue.images)
                self._changed.notify_all()


@dataclass
class _Turn:
    """A lane that was requested: when it came, and what it took."""

    began: float = 0.0
    parts: Sequence[Part] = ()
