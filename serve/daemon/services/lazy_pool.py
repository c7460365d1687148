"""A pool that is opened on first use, and the images that were found in it last."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from lloss.data.id_matching import Matches
from lloss.errors import PoolError
from lloss.pools import Item, Pool

_MAX_ITEMS = 100_000

_MAX_BYTES = 64 << 20
"""Of images inside cached items, as those of tables and compressed tars."""

_MAX_MISSING = 10_000
_MISSING_SECONDS = 30.0
"""How many missing ids are remembered, and how long: the pool may get more images."""


class LazyPool:
    """A pool and a cache of its items, since finding one may need a walk over the whole pool."""

    def __init__(self, uri: str, opener: Callable[[str], Pool]) -> None:
        self.uri = uri
        self._opener = opener
        self._pool: Pool | None = None
        self._opening = threading.Lock()
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._bytes = 0
        self._missing: OrderedDict[str, float] = OrderedDict()
        # Held during a walk: threads that wait may need the items that it finds.
        self._lock = threading.Lock()

    def open(self) -> Pool:
        """The pool, opened on the first call. Raises PoolError: it cannot be opened."""
        with self._opening:
            if self._pool is None:
                self._pool = self._opener(self.uri)
            return self._pool

    def items(self, ids: Iterable[str]) -> dict[str, Item]:
        """The items of these ids in this order, if the pool has them. Ask for many at once."""
        wanted = list(dict.fromkeys(ids))
        with self._lock:
            unknown = self._unknown(wanted)
            found = {id: self._items[id] for id in wanted if id in self._items}
            for id in found:
                self._items.move_to_end(id)
            for item in self._find(unknown) if unknown else ():
                found[item.id] = item
                self._cache(item)
            self._note_missing(id for id in unknown if id not in found)
        return {id: found[id] for id in wanted if id in found}

    def cached_ids(self, ids: Iterable[str]) -> set[str]:
        """The ids whose items are cached; does not wait, and does not open the pool."""
        return {id for id in ids if id in self._items}

    def existing_ids(self, ids: Iterable[str]) -> set[str]:
        """The ids that the pool has, however many; caches no items."""
        asked = set(ids)
        with self._lock:
            unknown = self._unknown(asked)
            existing = asked & self._items.keys()
            if unknown and self.open().indexed:
                existing.update(item.id for item in self._find(unknown))
            elif unknown:
                existing |= self._walk(set(unknown))
            self._note_missing(id for id in unknown if id not in existing)
        return existing

    def matches(self, names: Iterable[str]) -> Matches:
        """The ids that names may mean, by a walk over the pool; one walk at a time."""
        with self._lock:
            return Matches(self.open().ids, names)

    def _unknown(self, ids: Iterable[str]) -> list[str]:
        """The ids that are neither cached nor known to be missing."""
        now = time.monotonic()
        return [id for id in ids if id not in self._items and self._missing.get(id, 0.0) <= now]

    def _note_missing(self, ids: Iterable[str]) -> None:
        until = time.monotonic() + _MISSING_SECONDS
        self._missing.update((id, until) for id in ids)
        while len(self._missing) > _MAX_MISSING:
            self._missing.popitem(last=False)

    def _walk(self, ids: set[str]) -> set[str]:
        """The ids that the pool has, by a walk over its ids alone."""
        existing: set[str] = set()
        for id in self.open().ids():
            if id in ids:
                existing.add(id)
                if len(existing) == len(ids):
                    break
        return existing

    def _find(self, ids: list[str]) -> list[Item]:
        try:
            return self.open().find(ids)
        except PoolError:  # it does not say which are missing
            existing = self._walk(set(ids))
            if len(existing) == len(ids):
                raise
            return self.open().find([id for id in ids if id in existing]) if existing else []

    def _cache(self, item: Item) -> None:
        self._items[item.id] = item
        self._missing.pop(item.id, None)
        self._bytes += _size(item)
        while len(self._items) > _MAX_ITEMS or (self._bytes > _MAX_BYTES and len(self._items) > 1):
            self._bytes -= _size(self._items.popitem(last=False)[1])


def _size(item: Item) -> int:
    """Bytes of the image inside an item."""
    arguments = item.read.args if isinstance(item.read, functools.partial) else ()
    return sum(len(argument) for argument in arguments if isinstance(argument, bytes))
