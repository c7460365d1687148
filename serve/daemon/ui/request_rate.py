"""The rate of a counter, sampled when somebody looks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW = 10.0
"""Seconds over which the rate is taken."""

_STALE = 30.0
"""Seconds after which a sample is dropped, even the only one."""

_SHORTEST = 0.5
"""Seconds between two samples."""


class Rate:
    """The growth of a counter a second; each look is a sample, there is no thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()

    def sample(self, count: float) -> float | None:
        """Note the count; returns the rate over about :data:`WINDOW`, None when unknown."""
        now = self._clock()
        with self._lock:
            samples = self._samples
            while samples and now - samples[0][0] > _STALE:
                samples.popleft()
            if not samples or now - samples[-1][0] >= _SHORTEST:
                samples.append((now, count))
            # One sample before the window stays, for those who look seldom.
            while len(samples) > 2 and now - samples[1][0] >= WINDOW:
                samples.popleft()
            start, before = samples[0]
            return (count - before) / (now - start) if now - start >= _SHORTEST else None
