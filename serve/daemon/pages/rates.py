"""How fast counters grow, told from the looks that people take at them."""

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


class Rates:
    """Rates of any counters, by name. Holds no thread: each look at a counter is a sample."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: dict[str, deque[tuple[float, float]]] = {}
        self._lock = threading.Lock()

    def seen(self, name: str, count: float) -> float | None:
        """Note what a counter shows now.

        Returns:
            Its growth a second over about the last :data:`WINDOW`; None while nobody has looked
            long enough. A counter that went back, such as that of another run, begins anew.
        """
        now = self._clock()
        with self._lock:
            self._forget(now)
            looks = self._looks.setdefault(name, deque())
            if looks and count < looks[-1][1]:
                looks.clear()
            if not looks or now - looks[-1][0] >= _LEAST:
                looks.append((now, count))
            # One look beyond the window is kept, so that slow visitors see a rate too.
            while len(looks) > 2 and now - looks[1][0] >= WINDOW:
                looks.popleft()
            begun, before = looks[0]
            return (count - before) / (now - begun) if now - begun >= _LEAST else None

    def _forget(self, now: float) -> None:
        for name, looks in list(self._looks.items()):
            while looks and now - looks[0][0] > _STALE:
                looks.popleft()
            if not looks:
                del self._looks[name]
