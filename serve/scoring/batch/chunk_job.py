"""One chunk of images on its way through the pipeline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from lloss.serve.scoring.batch.ordered_results import PoolRun
from lloss.serve.scoring.batch.priority_threads import LIVE, POOL
from lloss.serve.scoring.result import Scores
from numpy.typing import NDArray

from lloss.errors import ImageError
from lloss.images.decode import MAX_PIXELS, Raw
from lloss.pools import Chunk


class ChunkJob:
    """The state of one chunk, from its reading to its scores.

    ``run`` is the pass over a pool that the chunk is part of; None for a live request.
    """

    def __init__(
        self, run: PoolRun | None, chunk: Chunk | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.run = run
        self.chunk = chunk or Chunk(0, [])
        self.max_pixels = max_pixels
        self.result: Future[Scores] = Future()
        self.priority = LIVE if run is None else POOL
        self.prefetched = False  # by readers, into ``fetched``
        self.fetched: dict[int, Raw | ImageError] = {}  # by row
        self.rows: NDArray[np.uint8] | None = None  # all images, of a remote array
        self.errors: dict[int, ImageError] = {}  # why an image is skipped, by row
        self.failure: BaseException | None = None
        self.buffer: Any = None  # the executor's
        self.begun = time.perf_counter()
        self.seconds = {"read": 0.0, "decode": 0.0}  # thread time
        self.finished = False  # guarded by the lock
        self.lock = threading.Lock()
        self._parts = 0

    def __len__(self) -> int:
        return len(self.chunk)

    @property
    def abandoned(self) -> bool:
        """Whether no thread should work on the job any more."""
        return self.failure is not None or (self.run is not None and self.run.stopped)

    def split(self, parts: int) -> None:
        """Divide the next stage into this number of parts."""
        self._parts = parts

    @contextlib.contextmanager
    def part(self, then: Callable[[], None]) -> Iterator[None]:
        """Work on one part; the last one to end calls ``then``.

        After a failure the other parts still end first: they write to the same buffer.
        """
        try:
            yield
        except BaseException as error:
            self.failure = error
        with self.lock:
            self._parts -= 1
            last = not self._parts
        if last:
            then()

    def spent(self, stage: str, seconds: float) -> None:
        """Add thread time to a stage."""
        with self.lock:
            self.seconds[stage] += seconds

    def raw(self, row: int) -> Raw:
        """Return an image's encoded bytes or array; read it unless a reader fetched it."""
        fetched = self.fetched.pop(row, None)
        if fetched is None:
            return self.chunk.items[row].read()
        if isinstance(fetched, ImageError):
            raise fetched
        return fetched

    def observe_size(self, size: int, images: int) -> None:
        """Report how many bytes some raw images have."""
        if self.run is not None:
            self.run.observe_size(size, images)
