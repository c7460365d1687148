"""A lock that keeps every other GPU call out while a CUDA graph is captured.

onnxruntime captures in CUDA's global mode: during a capture, any call of another thread that CUDA
counts as unsafe (allocating, freeing, waiting), on any GPU of the process, fails and spoils the
capture. So all GPU calls of this package hold one lock: shared, or exclusive for a capture. A
capture that other code (such as torch) spoils raises :class:`lloss.errors.CaptureError`.

Reference: CUDA Runtime API, ``cudaThreadExchangeStreamCaptureMode``,
https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__STREAM.html.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CaptureLock:
    """Shared by GPU users, exclusive for a capture; a waiting capture goes before new users."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may call later() inside the methods below.
        self._changed = threading.Condition(threading.RLock())
        self._users = self._waiting = 0
        self._capturing = False
        self._deferred: list[Callable[[], None]] = []

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Use a GPU. Do not nest: a capture may be waiting in between."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing and not self._waiting)
            self._users += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Capture, when all users have left."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._capturing and not self._users)
                self._capturing = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._capturing = False
                calls, self._deferred = self._deferred, []
                self._users += 1  # for the deferred calls
                self._changed.notify_all()
            try:
                for call in calls:
                    call()
            finally:
                self._leave()

    def later(self, call: Callable[[], None]) -> None:
        """Call at once, or after the current capture: for finalizers, which must not wait."""
        with self._changed:
            if self._capturing:
                self._deferred.append(call)
                return
            self._users += 1
        try:
            call()
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._users -= 1
            self._changed.notify_all()


CAPTURE_LOCK = CaptureLock()
"""The lock of this process."""
