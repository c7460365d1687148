"""A chunk of a pool on its way through the pipeline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from lloss.serve.scoring.result import Scores
from numpy.typing import NDArray

from lloss.errors import ImageError
from lloss.images.decode import Raw
from lloss.pools import Chunk


class Job:
    """A chunk, what became of its images so far, and the result that somebody waits for.

    Attributes:
        chunk: of the pool.
        items: its images.
        fetched: what readers fetched ahead, an entry an image; None where nothing was.
        rows: all images at once, where the chunk is rows of a remote array.
        errors: why images cannot be used, by row.
        failure: what ends the whole run.
        buffer: the executor's, while the job holds it.
        begun: when, by ``time.perf_counter``.
        seconds: that threads spent on it, by stage.
        result: its scores, or the failure.
        lock: held while the result is given out.
    """

    def __init__(self, chunk: Chunk, result: Future[Scores] | None = None) -> None:
        self.chunk = chunk
        self.items = chunk.items
        self.fetched: list[Raw | ImageError | None] = [None] * len(self.items)
        self.errors: dict[int, ImageError] = {}
        self.failure: BaseException | None = None
        self.rows: NDArray[np.uint8] | None = None
        self.buffer: Any = None
        self.begun = time.perf_counter()
        self.seconds = {"read": 0.0, "decode": 0.0}
        self.result: Future[Scores] = result or Future()
        self._open = 0
        self.lock = threading.Lock()

    def split(self, parts: int) -> None:
        """Wait for so many parts from now on."""
        self._open = parts

    @contextlib.contextmanager
    def part(self, then: Callable[[], None]) -> Iterator[None]:
        """One of the parts: a failure waits for the others, which write to the same buffer."""
        try:
            yield
        except BaseException as error:
            self.failure = error
        with self.lock:
            self._open -= 1
            last = self._open == 0
        if last:
            then()

    def spent(self, stage: str, seconds: float) -> None:
        """Add to what all threads together spent on it."""
        with self.lock:
            self.seconds[stage] += seconds

    def raw(self, row: int) -> Raw:
        """The image's bytes, fetched before or read now.

        Raises:
            ImageError: it cannot be read.
        """
        fetched, self.fetched[row] = self.fetched[row], None
        if fetched is None:
            return self.items[row].read()
        if isinstance(fetched, ImageError):
            raise fetched
        return fetched
