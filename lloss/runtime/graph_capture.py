"""Nothing of this process uses a GPU while a CUDA graph is captured.

onnxruntime captures in CUDA's global mode: while it does, any call of any other thread that CUDA
counts as unsafe (allocating, freeing, waiting), on any GPU of the process, fails and spoils the
capture. So all that uses a GPU here goes through one lock: any number share it, a capture has it
alone. Other code in the process, such as torch's, does not know of it: a capture that it spoils is
found by :class:`lloss.errors.CaptureError`.

Reference: CUDA Runtime API, ``cudaThreadExchangeStreamCaptureMode``,
https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__STREAM.html.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CaptureLock:
    """Shared by what uses a GPU, exclusive for a capture; one who waits to capture goes first."""

    def __init__(self) -> None:
        # Reentrant: the collector may call later() in the midst of the methods below.
        self._changed = threading.Condition(threading.RLock())
        self._users = self._waiting = 0
        self._capturing = False
        self._put_off: list[Callable[[], None]] = []

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Use a GPU. Not to be nested: a capture may be waiting in between."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing and not self._waiting)
            self._users += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Capture, when all others have left."""
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
                todo, self._put_off = self._put_off, []
                self._users += 1  # for what was put off
                self._changed.notify_all()
            try:
                for call in todo:
                    call()
            finally:
                self._leave()

    def later(self, call: Callable[[], None]) -> None:
        """Call at once, or after the capture under way: for finalizers, which must not wait."""
        with self._changed:
            if self._capturing:
                self._put_off.append(call)
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


DEVICES = CaptureLock()
"""The one of this process."""
