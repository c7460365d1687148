"""A wall clock that never goes back."""

from __future__ import annotations

import threading
import time

_TOLERATED_SECONDS = 24 * 3600.0
"""A clock may be set back by less than this: pending images then expire that much later."""

_EARLIEST = 1_767_225_600.0
"""The beginning of 2026: a system clock before it is wrong, as when its battery is empty."""


class Clock:
    """Unix seconds that never decrease while a process runs.

    After a restart they decrease only if the previous process, which saw ``latest``, evidently ran
    with a clock in the future: the system's time is plausible, and a day or more behind that.
    ``ahead`` is by how many seconds, or 0.
    """

    def __init__(self, latest: float) -> None:
        self._lock = threading.Lock()
        now, self._monotonic = time.time(), time.monotonic()
        wrong = latest - now >= _TOLERATED_SECONDS and now >= _EARLIEST
        self.ahead = latest - now if wrong else 0.0
        self._latest = now if wrong else max(latest, now)

    def now(self) -> float:
        """The system's time; if that was set back, the time that has passed since."""
        with self._lock:
            monotonic = time.monotonic()
            self._latest = max(self._latest + monotonic - self._monotonic, time.time())
            self._monotonic = monotonic
            return self._latest
