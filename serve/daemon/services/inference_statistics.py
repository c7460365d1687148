"""How many requests a model answered, as Triton's statistics tell it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Statistics:
    """Counted in the event loop alone.

    Attributes:
        images: of requests that succeeded.
        last: when the last of them ended, in Unix milliseconds; 0 before the first.
    """

    def __init__(self) -> None:
        self.images = self.last = 0
        self._count = {True: 0, False: 0}
        self._nanoseconds = {True: 0, False: 0}

    @contextmanager
    def request(self, images: int) -> Iterator[None]:
        """Count the request of the block; an exception is a failure."""
        begun = time.perf_counter_ns()
        succeeded = False
        try:
            yield
            succeeded = True
            self.images += images
            self.last = int(time.time() * 1000)
        finally:
            self._count[succeeded] += 1
            self._nanoseconds[succeeded] += time.perf_counter_ns() - begun

    def durations(self) -> dict[str, Any]:
        """``success`` and ``fail``, each with a count and nanoseconds in all."""
        return {
            name: {"count": self._count[succeeded], "ns": self._nanoseconds[succeeded]}
            for name, succeeded in (("success", True), ("fail", False))
        }
