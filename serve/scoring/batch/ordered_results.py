"""One pass over a pool: results in the pool's order, and a bounded number of chunks under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from lloss.serve.scoring.result import Scores

from lloss.pools import Chunk

_POLL_SECONDS = 0.1
"""Interval at which a waiting feeder looks whether the consumer has left."""


@dataclass(frozen=True)
class RunLimits:
    """What may be under way at once."""

    results: int  # chunks that the consumer has not taken yet
    chunks: int  # chunks in work, whatever their size
    size: int  # bytes of raw images that chunks in work may hold beyond that


class PoolRun:
    """Begins chunks in a thread of its own, the feeder, and yields their scores in order.

    The size of an image is known only when it was read: the mean of the images read so far is the
    estimate for the next ones. ``stopped`` says whether the consumer has left.
    """

    def __init__(
        self,
        begin: Callable[[PoolRun, Chunk], Future[Scores]],
        limits: RunLimits,
        on_queue: Callable[[int], None],
    ) -> None:
        self.stopped = False
        self._begin, self._limits, self._on_queue = begin, limits, on_queue
        self._changed = threading.Condition()
        self._results: deque[Future[Scores] | None] = deque()
        self._in_work = self._bytes = self._images = 0

    def scores(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the scores of all chunks, in their order."""
        threading.Thread(target=self._feed, args=(chunks,), name="lloss-feed", daemon=True).start()
        try:
            while (result := self._next()) is not None:
                yield result.result()
        finally:
            # The garbage collector may run this in any thread, whatever locks that thread holds:
            # so it takes no lock and waits for nothing. All others look at this flag.
            self.stopped = True

    def observe_size(self, size: int, images: int) -> None:
        """Note that this number of raw images has this number of bytes."""
        with self._changed:
            self._bytes += size
            self._images += images
            self._changed.notify_all()

    def _next(self) -> Future[Scores] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._results)
            result = self._results.popleft()
            self._on_queue(len(self._results))
            self._changed.notify_all()
        return result

    def _feed(self, chunks: Iterable[Chunk]) -> None:
        try:
            for chunk in chunks:
                if not self._wait_for_capacity(len(chunk)):
                    return
                result = self._begin(self, chunk)
                self._put(result)
                result.add_done_callback(self._one_done)
        except BaseException as error:
            failed: Future[Scores] = Future()
            failed.set_exception(error)
            self._put(failed)
        finally:
            self._put(None)
            self._on_queue(0)

    def _put(self, result: Future[Scores] | None) -> None:
        with self._changed:
            self._results.append(result)
            self._changed.notify_all()

    def _wait_for_capacity(self, images: int) -> bool:
        """Wait until a chunk may begin; False when the consumer has left."""
        with self._changed:
            while not (self.stopped or self._has_capacity(images)):
                self._changed.wait(_POLL_SECONDS)
            self._in_work += 1
        return not self.stopped

    def _has_capacity(self, images: int) -> bool:
        if len(self._results) >= self._limits.results:
            return False
        if self._in_work < self._limits.chunks:
            return True
        if not self._images:
            return False
        mean = self._bytes / self._images
        return (self._in_work + 1) * images * mean <= self._limits.size

    def _one_done(self, _: Future[Scores]) -> None:
        with self._changed:
            self._in_work -= 1
            self._changed.notify_all()
