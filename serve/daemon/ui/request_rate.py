"""How fast a counter grows, told from the looks that people take at it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW = 10.0
"""Seconds over which a rate is taken."""

_STALE = 30.0
"""Seconds after which a look is forgotten, even if it is the only one."""

_LEAST = 0.5
"""Seconds that two looks must lie apart to tell a rate."""


class Rate:
    """The rate of a counter. Holds no thread: each look at the counter is a sample."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()

    def seen(self, count: float) -> float | None:
        """Note what the counter shows now.

        Returns:
            Its growth a second over about the last :data:`WINDOW`; None while nobody has looked
            long enough. A counter that went back, such as that of another run, begins anew.
        """
        now = self._clock()
        with self._lock:
            looks = self._looks
            while looks and now - looks[0][0] > _STALE:
                looks.popleft()
            if looks and count < looks[-1][1]:
                looks.clear()
            if not looks or now - looks[-1][0] >= _LEAST:
                looks.append((now, count))
            # One look beyond the window is kept, so that slow visitors see a rate too.
            while len(looks) > 2 and now - looks[1][0] >= WINDOW:
                looks.popleft()
            begun, before = looks[0]
            return (count - before) / (now - begun) if now - begun >= _LEAST else None
