"""A bound of the bytes that the threads of a process hold at once."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class ByteBudget:
    """Bytes that threads share; a thread that asks for more than is free waits, first come first.

    A request larger than the whole budget waits until nothing else is held, and then runs alone.

    Attributes:
        total: bytes in all.
        free: bytes that no thread holds.
    """

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Hold ``count`` bytes of the budget while the block runs."""
        count = min(count, self.total)
        self._take(count)
        try:
            yield
        finally:
            with self._changed:
                self.free += count
                self._changed.notify_all()

    def _take(self, count: int) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self.free >= count)
                self.free -= count
            finally:  # an interrupted wait must not block those behind it
                self._queue.remove(ticket)
                self._changed.notify_all()
