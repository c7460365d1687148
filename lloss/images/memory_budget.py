"""A bound of the bytes that the threads of a process hold at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class ByteBudget:
    """Bytes that threads share; a thread that asks for more than is free waits.

    A request larger than the whole budget waits until nothing else is held, and then runs alone.
    """

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # a large request that waits is not overtaken for ever

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Hold ``count`` bytes of the budget while the block runs."""
        count = min(count, self.total)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.free >= count)
            self.free -= count
        try:
            yield
        finally:
            with self._changed:
                self.free += count
                self._changed.notify_all()
