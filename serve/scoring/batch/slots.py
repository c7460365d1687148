"""Permission to use a core or a device, which requests get before pools."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Iterator

from lloss.serve.scoring.engine.gpu_executor import RUNS

from lloss.runtime.cpu_count import usable_cores

LIVE, POOL = 0, 1
"""Priority: of a request that a client waits for, or of a pool. Lower goes first."""


class Slots:
    """A semaphore that serves its waiters by priority, and those of one priority in their order."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, threading.Event]] = []
        self._number = itertools.count()

    @contextlib.contextmanager
    def held(self, priority: int) -> Iterator[None]:
        """Hold a slot during the block; wait until one is free."""
        self._take(priority)
        try:
            yield
        finally:
            self._give_back()

    def _take(self, priority: int) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            heapq.heappush(self._waiting, (priority, next(self._number), turn))
        turn.wait()

    def _give_back(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._free += 1


class ComputeSlots:
    """Slots of the cores and of the GPU, which scorers on the same hardware share.

    A live request of one scorer goes before a pool's batch of another one.
    """

    def __init__(self, threads: int = 0) -> None:
        self.cores, self.device = Slots(threads or usable_cores()), Slots(RUNS)
