"""A session that behaves as one on a GPU does, pictures, and cores that a test holds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from lloss.serve.scoring.batch.slots import Slots


def pictures(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def hold_all(slots: Slots, count: int = 0) -> contextlib.ExitStack:
    """Hold some or all slots, before every other waiter, until the stack is closed."""
    held = contextlib.ExitStack()
    for _ in range(count or slots.count):
        held.enter_context(slots.held(-1))
    return held


class FakeGpuSession:
    """A session on the CPU that notes its runs, and fails or waits on demand."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.most: int | None = None  # images that its memory holds
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.errors: list[Exception] = []  # of the next runs
        self.before: Callable[[], object] = lambda: None

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> Any:
        self.threads.add(threading.get_ident())
        self.before()
        if self.errors:
            raise self.errors.pop(0)
        size = len(feed["images"])
        if self.most is not None and size > self.most:
            raise RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer")
        self.sizes.append(size)
        return self._session.run(names, feed)
