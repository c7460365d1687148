"""How much of a pool may be under way at once, in bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable

_PATIENCE = 0.1
"""Seconds after which a thread that waits looks whether it is still wanted."""


class Room:
    """Holds back chunks while those under way may hold too many bytes.

    How many bytes an image has is known when it was read; so the mean of those read so far stands
    for the next ones. Until one was read, only the least is let in.

    Args:
        least: chunks that may be inside whatever their size.
        limit: bytes that the chunks inside may hold beyond that.
    """

    def __init__(self, least: int, limit: int) -> None:
        self._least, self._limit = least, limit
        self._inside = 0
        self._bytes = self._images = 0
        self._changed = threading.Condition()

    def enter(self, images: int, stopped: Callable[[], bool]) -> bool:
        """Wait until there is room for a chunk of so many images; False when stopped before."""
        with self._changed:
            while not self._fits(images):
                if stopped():
                    return False
                self._changed.wait(_PATIENCE)
            self._inside += 1
            return True

    def _fits(self, images: int) -> bool:
        if self._inside < self._least:
            return True
        if not self._images:
            return False
        mean = self._bytes / self._images
        return (self._inside + 1) * images * mean <= self._limit

    def learn(self, size: int, images: int) -> None:
        """Some images have so many bytes."""
        with self._changed:
            self._bytes += size
            self._images += images
            self._changed.notify_all()

    def leave(self) -> None:
        """A chunk is done."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()
