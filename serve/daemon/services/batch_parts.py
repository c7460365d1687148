"""What batches are made of: parts of requests, and the answers that are put together of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lloss.serve.scoring.result import Scores
from numpy.typing import NDArray

from lloss.errors import EngineError, ImageError
from lloss.images.decode import Raw
from lloss.pools import Chunk, Item

Images = NDArray[np.uint8] | Sequence[Raw]


@dataclass(frozen=True)
class Answer:
    """What became of a request's N images.

    Attributes:
        columns: the artifact's outputs by name, float32 [N, ...]; NaN in rows of ``errors``.
        errors: why an image could not be used, by its row.
    """

    columns: Mapping[str, NDArray[np.float32]]
    errors: Mapping[int, str]


class Request:
    """A request on its way; its future belongs to the event loop, all else to the lanes."""

    def __init__(self, images: Images, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        self.images, self.count, self.deadline = images, len(images), deadline
        self.arrived = time.perf_counter()
        self.loop = loop
        self.future: asyncio.Future[Answer] = loop.create_future()
        self.left = self.count
        self.outcome: Answer | BaseException | None = None
        self._open = self.count
        self._lock = threading.Lock()  # two lanes may each have a part of it
        self._columns: dict[str, NDArray[np.float32]] = {}
        self._errors: dict[int, str] = {}

    def part(self, most: int, at: int) -> Part:
        """The next images of it, for the rows of a batch that begin there."""
        start = self.count - self.left
        count = min(most, self.left)
        self.left -= count
        return Part(self, start, count, at)

    def image(self, number: int) -> Raw:
        """One of them, to be decoded now.

        Raises:
            ImageError: nobody waits for it any more.
        """
        if self.future.done():
            raise ImageError("its request was cancelled, or its time is over")
        return self.images[number]

    def filled(self, part: Part, rows: Rows) -> bool:
        """Take what was found of a part; whether that was the last."""
        inside = slice(part.at, part.at + part.count)
        errors = {
            row - part.at + part.start: reason
            for row, reason in rows.errors.items()
            if part.at <= row < part.at + part.count
        }
        if part.count == self.count:  # the usual case: nothing to put together
            columns = {name: values[inside] for name, values in rows.columns.items()}
            self.outcome = self.outcome or Answer(columns, errors)
            return True
        with self._lock:
            for name, values in rows.columns.items():
                if name not in self._columns:
                    shape = (self.count, *values.shape[1:])
                    self._columns[name] = np.empty(shape, np.float32)
                self._columns[name][part.start : part.start + part.count] = values[inside]
            self._errors.update(errors)
            self._open -= part.count
            if self._open or self.outcome is not None:
                return False
            self.outcome = Answer(self._columns, dict(sorted(self._errors.items())))
            return True

    def fail(self, error: BaseException) -> None:
        """Its outcome is this error, or the one before."""
        # Each its own: an exception collects the frames of whoever raises it.
        own = EngineError(str(error)) if isinstance(error, EngineError) else error
        self.outcome = self.outcome or own

    def settle(self) -> None:
        """Tell who waits, in the event loop."""
        if self.future.done():
            return  # too late, or nobody waits
        if isinstance(self.outcome, Answer):
            self.future.set_result(self.outcome)
        elif self.outcome is not None:
            self.future.set_exception(self.outcome)


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a request, which are rows of a batch."""

    request: Request
    start: int
    count: int
    at: int
    """The first one's row."""

    @property
    def images(self) -> Images:
        """They."""
        return self.request.images[self.start : self.start + self.count]


class Items(Sequence[Item]):
    """The images of parts one by one, made when they are asked for."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._at = [part.at for part in parts]

    def __len__(self) -> int:
        return self._parts[-1].at + self._parts[-1].count

    def __getitem__(self, row: Any) -> Any:
        part = self._parts[bisect_right(self._at, row) - 1]
        request, number = part.request, part.start + row - part.at
        return Item(str(row), lambda: request.image(number))


@dataclass(frozen=True)
class Batch(Chunk):
    """Parts of requests, for the pipeline; the ids are the rows."""

    parts: Sequence[Part]
    shape: tuple[int, ...]
    """Of an image that is copied and not decoded."""

    @property
    def ids(self) -> list[str]:
        """The rows."""
        return [str(row) for row in range(len(self))]

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        """Copy pixels of the very size; see :meth:`lloss.pools.Chunk.read_rows`."""
        if not all(self._are_rows(part.request.images) for part in self.parts):
            return False
        for part in self.parts:
            out[part.at : part.at + part.count] = part.images
        return True

    def _are_rows(self, images: Images) -> bool:
        return isinstance(images, np.ndarray) and images.shape[1:] == self.shape


@dataclass(frozen=True)
class Rows:
    """A batch's outputs with a row for each image, NaN where that was bad."""

    columns: Mapping[str, NDArray[np.float32]]
    errors: Mapping[int, str]

    @classmethod
    def of(cls, scores: Scores) -> Rows:
        """Of a batch whose ids are its rows."""
        if not scores.skipped:
            return cls(scores.columns, {})
        good = [int(id) for id in scores.ids]
        columns = {}
        for name, values in scores.columns.items():
            columns[name] = np.full((scores.seen, *values.shape[1:]), np.nan, np.float32)
            columns[name][good] = values
        return cls(columns, {int(id): reason for id, reason in scores.skipped})


def deliver(requests: Sequence[Request]) -> None:
    """Wake each event loop once for all of a batch."""
    of: dict[asyncio.AbstractEventLoop, list[Request]] = {}
    for request in requests:
        of.setdefault(request.loop, []).append(request)
    for loop, its in of.items():
        with contextlib.suppress(RuntimeError):  # it was closed, and nobody waits
            loop.call_soon_threadsafe(_settle, its)


def _settle(requests: Sequence[Request]) -> None:
    for request in requests:
        request.settle()
