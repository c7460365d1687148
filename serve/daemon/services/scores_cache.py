"""Values computed from a scores folder, kept until the folder changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Generic, TypeVar

from lloss.scores.scores_folder import RUN, ScoresFolder

T = TypeVar("T")


class ScoresCache(Generic[T]):
    """A least-recently-used cache of ``compute(folder)``, one value per version of a folder.

    Threads that need the same value wait for one computation, which is not cached if it fails.
    """

    def __init__(self, compute: Callable[[ScoresFolder], T], size: int) -> None:
        self._compute, self._size = compute, size
        self._values: OrderedDict[tuple[Path, int], Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, folder: ScoresFolder) -> T:
        """The folder's value, computed on the first call."""
        # A folder that the command line made can be scored again in its place.
        key = folder.path, (folder.path / RUN).stat().st_mtime_ns
        with self._lock:
            cached = self._values.get(key)
            value = self._values[key] = cached or Future()
            self._values.move_to_end(key)
            if len(self._values) > self._size:
                self._values.popitem(last=False)
        if cached is None:
            try:
                value.set_result(self._compute(folder))
            except BaseException as error:
                value.set_exception(error)
                with self._lock:
                    self._values.pop(key, None)
        return value.result()
