"""Images that were asked for, for the next who asks: to find one may take a walk over the pool."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

from lloss.data.id_matching import Matches
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
            new = self._new(wanted)
            given = {id: self._found[id] for id in wanted if id in self._found}
            for item in self._walked(new) if new else ():
                given[item.id] = item
                self._keep(item)
            self._miss(id for id in new if id not in given)
            for id in given:
                if id in self._found:
                    self._found.move_to_end(id)
        return {id: given[id] for id in wanted if id in given}

    def kept(self, ids: Iterable[str]) -> set[str]:
        """Those of these ids whose items are kept; the pool is not asked."""
        # Without the lock, which a walk holds: each look is one step of the interpreter.
        return {id for id in ids if id in self._found}

    def held(self, ids: Iterable[str]) -> set[str]:
        """Those of these ids that the pool has. No image is kept, however many ids there are.

        Raises:
            PoolError: the pool cannot be read.
        """
        asked = set(ids)
        with self._lock:
            new = self._new(asked)
            there = asked & self._found.keys()
            if new and self.pool.indexed:
                there.update(item.id for item in self._walked(new))
            elif new:
                there |= self._listed(set(new))
            self._miss(id for id in new if id not in there)
        return there

    def matches(self, names: Iterable[str]) -> Matches:
        """What names mean among the ids of the pool; one walk at a time.

        Raises:
            PoolError: the pool cannot be read.
        """
        with self._lock:
            return Matches(self.pool.ids, names)

    def _new(self, ids: Iterable[str]) -> list[str]:
        """Those that nothing is known of."""
        now = time.monotonic()
        return [id for id in ids if id not in self._found and self._missed.get(id, 0.0) <= now]

    def _miss(self, ids: Iterable[str]) -> None:
        until = time.monotonic() + _MISSED_SECONDS
        for id in ids:
            self._missed[id] = until
        while len(self._missed) > _MISSED:
            self._missed.popitem(last=False)

    def _listed(self, ids: set[str]) -> set[str]:
        """Those that are in the pool, by a walk over its ids alone."""
        there: set[str] = set()
        for id in self.pool.ids():
            if id in ids:
                there.add(id)
                if len(there) == len(ids):
                    break
        return there

    def _walked(self, ids: list[str]) -> list[Item]:
        try:
            return self.pool.find(ids)
        except PoolError:  # it does not say which are missing
            there = self._listed(set(ids))
            if len(there) == len(ids):
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
    return sum(len(given) for given in read.args if isinstance(given, bytes))
