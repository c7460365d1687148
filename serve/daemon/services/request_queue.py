"""Requests that wait, and who of them is next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from lloss.serve.daemon.services.batch_parts import Part, Request


class Line:
    """First come, first served, among requests of one kind.

    There are small ones, which fit into a batch, and large ones. When both wait they begin a batch
    by turns, so that nobody waits until a large one is through, nor for ever behind small ones.

    Args:
        batch_size: images a batch at most.

    Attributes:
        images: that wait.
    """

    def __init__(self, batch_size: int) -> None:
        self.images = 0
        self._batch_size = batch_size
        self._small: OrderedDict[Request, None] = OrderedDict()
        self._large: OrderedDict[Request, None] = OrderedDict()
        self._large_first = False

    def __bool__(self) -> bool:
        return bool(self._small or self._large)

    def __iter__(self) -> Iterator[Request]:
        yield from self._small
        yield from self._large

    def add(self, request: Request) -> None:
        """Put it to the end."""
        self._of(request)[request] = None
        self.images += request.left

    def remove(self, request: Request) -> bool:
        """Take what is left of it out; False where nothing of it waits."""
        queue = self._of(request)
        if request not in queue:
            return False
        del queue[request]
        self.images -= request.left
        return True

    def take(self, room: int, now: float) -> list[Part]:
        """Images for a batch, at most ``room`` of them; requests whose time is over are dropped."""
        parts: list[Part] = []
        count = 0
        first, second = self._small, self._large
        if self._large_first:
            first, second = second, first
        if first and second:
            self._large_first = not self._large_first
        for queue in (first, second):
            while queue and count < room:
                request = next(iter(queue))
                if request.deadline <= now:
                    self.remove(request)
                    continue
                parts.append(part := request.part(room - count, at=count))
                count += part.count
                self.images -= part.count
                if not request.left:
                    del queue[request]
        return parts

    def _of(self, request: Request) -> OrderedDict[Request, None]:
        return self._small if request.count <= self._batch_size else self._large
