"""Requests that wait to be scored, and the batches that their images form."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from lloss.serve.scoring.result import Scores
from numpy.typing import NDArray

from lloss.images.decode import Raw
from lloss.pools import Chunk, Item

Images = NDArray[np.uint8] | Sequence[Raw]


@dataclass(frozen=True)
class Answer:
    """The outputs for N images.

    Attributes:
        columns: the model's outputs by name, float32 [N, ...]; NaN in the rows of ``errors``.
        errors: why an image could not be scored, by row.
    """

    columns: Mapping[str, NDArray[np.float32]]
    errors: Mapping[int, str]

    @classmethod
    def of(cls, scores: Scores) -> Answer:
        """The outputs of a batch, with a row for every image also where one could not be read."""
        if not scores.skipped:
            return cls(scores.columns, {})
        good = [int(id) for id in scores.ids]
        columns = {}
        for name, values in scores.columns.items():
            columns[name] = np.full((scores.seen, *values.shape[1:]), np.nan, np.float32)
            columns[name][good] = values
        return cls(columns, {int(id): reason for id, reason in scores.skipped})


class ScoringRequest:
    """A request in progress. Its future belongs to the event loop, the rest to the lanes."""

    def __init__(self, images: Images, loop: asyncio.AbstractEventLoop) -> None:
        self.images, self.count = images, len(images)
        self.arrived = time.perf_counter()
        self.future: asyncio.Future[Answer] = loop.create_future()
        self.waiting = self._missing = self.count
        self._outcome: Answer | BaseException | None = None
        self._lock = threading.Lock()  # two lanes may each score a part
        self._columns: dict[str, NDArray[np.float32]] = {}
        self._errors: dict[int, str] = {}

    def take(self, most: int, row: int) -> Part:
        """Its next images, for the rows of a batch from ``row``."""
        start = self.count - self.waiting
        count = min(most, self.waiting)
        self.waiting -= count
        return Part(self, start, count, row)

    def fill(self, part: Part, batch: Answer) -> bool:
        """Copy a part's rows from a batch; returns whether the request is complete."""
        rows = range(part.row, part.row + part.count)
        with self._lock:
            for name, values in batch.columns.items():
                if name not in self._columns:
                    self._columns[name] = np.empty((self.count, *values.shape[1:]), np.float32)
                own = self._columns[name][part.start : part.start + part.count]
                own[:] = values[rows.start : rows.stop]
            for row in rows:
                if row in batch.errors:
                    self._errors[part.start + row - part.row] = batch.errors[row]
            self._missing -= part.count
            if not self._missing:
                answer = Answer(self._columns, dict(sorted(self._errors.items())))
                self._outcome = self._outcome or answer
            return not self._missing

    def fail(self, error: BaseException) -> None:
        """End with this error, unless it has ended."""
        self._outcome = self._outcome or error

    def settle(self) -> None:
        """Set the future; in the event loop."""
        if self.future.done():
            return
        if isinstance(self._outcome, Answer):
            self.future.set_result(self._outcome)
        elif self._outcome is not None:
            self.future.set_exception(self._outcome)


@dataclass(frozen=True, slots=True)
class Part:
    """Images of a request, from ``start``, that are rows of a batch, from ``row``."""

    request: ScoringRequest
    start: int
    count: int
    row: int

    @property
    def images(self) -> Images:
        """This part's images."""
        return self.request.images[self.start : self.start + self.count]


@dataclass(frozen=True)
class RequestBatch(Chunk):
    """Parts of requests, whose ids are rows. Images of ``shape`` are copied, others decoded."""

    parts: Sequence[Part]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Part], shape: tuple[int, ...]) -> RequestBatch:
        """A batch of these parts."""
        images = [image for part in parts for image in part.images]
        items = [Item(str(row), partial(_given, image)) for row, image in enumerate(images)]
        return cls(0, items, parts, shape)

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        """Copy pixels that have the model's size; see :meth:`lloss.pools.Chunk.read_rows`."""
        requests = (part.request.images for part in self.parts)
        if not all(isinstance(im, np.ndarray) and im.shape[1:] == self.shape for im in requests):
            return False
        for part in self.parts:
            out[part.row : part.row + part.count] = part.images
        return True


class RequestQueue:
    """First come, first served, among small requests (which fit into a batch) and among large.

    If both wait they begin a batch by turns: neither waits until all of the other kind are done.
    ``images`` counts those that wait.
    """

    def __init__(self, batch_size: int) -> None:
        self.images = 0
        self._batch_size = batch_size
        self._small: OrderedDict[ScoringRequest, None] = OrderedDict()
        self._large: OrderedDict[ScoringRequest, None] = OrderedDict()
        self._large_first = False

    def __bool__(self) -> bool:
        return bool(self._small or self._large)

    def __iter__(self) -> Iterator[ScoringRequest]:
        yield from self._small
        yield from self._large

    def add(self, request: ScoringRequest) -> None:
        """Append a request."""
        self._of(request)[request] = None
        self.images += request.waiting

    def remove(self, request: ScoringRequest) -> bool:
        """Remove the images of a request that still wait; False if none does."""
        queue = self._of(request)
        if request not in queue:
            return False
        del queue[request]
        self.images -= request.waiting
        return True

    def take(self, most: int) -> list[Part]:
        """Images for a batch, ``most`` or fewer."""
        parts: list[Part] = []
        count = 0
        queues = (self._large, self._small) if self._large_first else (self._small, self._large)
        if all(queues):
            self._large_first = not self._large_first
        for queue in queues:
            while queue and count < most:
                request = next(iter(queue))
                parts.append(part := request.take(most - count, row=count))
                count += part.count
                self.images -= part.count
                if not request.waiting:
                    del queue[request]
        return parts

    def _of(self, request: ScoringRequest) -> OrderedDict[ScoringRequest, None]:
        return self._small if request.count <= self._batch_size else self._large


def _given(image: Raw) -> Raw:
    return image


def settle(requests: Sequence[ScoringRequest]) -> None:
    """Settle requests of one event loop from another thread, and wake the loop once."""

    def settle_all() -> None:
        for request in requests:
            request.settle()

    if requests:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            requests[0].future.get_loop().call_soon_threadsafe(settle_all)
