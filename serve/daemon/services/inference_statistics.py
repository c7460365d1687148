"""Statistics of inference requests, as Triton reports them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class InferenceStatistics:
    """Counts requests, in the event loop, and batches, in the threads that score them.

    Attributes:
        batches: that were scored for requests.
        images: of requests that succeeded.
        durations: ``success`` and ``fail``, each with ``count`` and total nanoseconds ``ns``.
        last: when the last of them ended, in Unix milliseconds; 0 before the first.
    """

    def __init__(self) -> None:
        self.batches = self.images = self.last = 0
        self.durations = {name: {"count": 0, "ns": 0} for name in ("success", "fail")}

    @contextmanager
    def request(self, images: int) -> Iterator[None]:
        """Count the block as a request; an exception is a failure."""
        began = time.perf_counter_ns()
        durations = self.durations["fail"]
        try:
            yield
            durations = self.durations["success"]
            self.images += images
            self.last = int(time.time() * 1000)
        finally:
            durations["count"] += 1
            durations["ns"] += time.perf_counter_ns() - began
