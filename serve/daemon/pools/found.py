"""Images that were asked for, for the next who asks: to find one may take a walk over the pool."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

from lloss.errors import PoolError
from lloss.pools import Item, Pool

_MOST = 100_000
"""Items that are kept."""

_MOST_BYTES = 64 << 20
"""Of images that items carry, as those of tables and compressed tars do."""

_MISSED = 10_000
_MISSED_SECONDS = 30.0
"""How many ids are remembered that are not in the pool, and how long: it may get more images."""


class FoundItems:
    """The items of a pool that were found last.

    Args:
        pool: opened.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._found: OrderedDict[str, Item] = OrderedDict()
        self._missed: OrderedDict[str, float] = OrderedDict()
        self._bytes = 0
        # Held during a walk: whoever asks meanwhile may find what it brings.
        self._lock = threading.Lock()

    def items(self, ids: Iterable[str]) -> dict[str, Item]:
        """The items of these ids, in this order, without those that the pool does not have.

        Raises:
            PoolError: the pool cannot be read.
        """
        wanted = list(dict.fromkeys(ids))
        with self._lock:
            now = time.monotonic()
            new = [
                id for id in wanted if id not in self._found and self._missed.get(id, 0.0) <= now
            ]
            given = {id: self._found[id] for id in wanted if id in self._found}
            for item in self._walked(new) if new else ():
                given[item.id] = item
                self._keep(item)
            for id in new:
                if id not in given:
                    self._missed[id] = now + _MISSED_SECONDS
            while len(self._missed) > _MISSED:
                self._missed.popitem(last=False)
            for id in given:
                if id in self._found:
                    self._found.move_to_end(id)
        return {id: given[id] for id in wanted if id in given}

    def _walked(self, ids: list[str]) -> list[Item]:
        try:
            return self.pool.find(ids)
        except PoolError:  # it does not say which are missing
            asked = set(ids)
            there = {id for id in self.pool.ids() if id in asked}
            if len(there) == len(asked):
                raise
            return self.pool.find([id for id in ids if id in there]) if there else []

    def _keep(self, item: Item) -> None:
        self._found[item.id] = item
        self._missed.pop(item.id, None)
        self._bytes += _carried(item)
        while len(self._found) > _MOST or (self._bytes > _MOST_BYTES and len(self._found) > 1):
            _, old = self._found.popitem(last=False)
            self._bytes -= _carried(old)


def _carried(item: Item) -> int:
    """Bytes of the image that an item holds itself."""
    read = item.read
    if not isinstance(read, functools.partial):
        return 0
    return sum(len(given) for given in read.args if isinstance(given, bytes) and len(given) > 4096)
