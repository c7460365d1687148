"""A pool that is opened on first use, and the images that were found in it last."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from lloss.errors import PoolError
from lloss.pools import Item, Pool
from lloss.pools.table_columns import ImageCell

_MAX_ITEMS = 100_000

_MAX_BYTES = 64 << 20
"""Most bytes of images inside cached items, as those of tables and compressed tars."""


class LazyPool:
    """A pool and a cache of its items, since finding one may need a walk over the whole pool."""

    def __init__(self, uri: str, opener: Callable[[str], Pool]) -> None:
        self.uri = uri
        self._opener = opener
        self._pool: Pool | None = None
        self._opening = threading.Lock()
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._bytes = 0
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
            found = {id: self._items[id] for id in wanted if id in self._items}
            for id in found:
                self._items.move_to_end(id)
            for item in self._find([id for id in wanted if id not in found]):
                found[item.id] = item
                self._cache(item)
        return {id: found[id] for id in wanted if id in found}

    def cached_ids(self, ids: Iterable[str]) -> set[str]:
        """The ids whose items are cached; does not wait, and does not open the pool."""
        return {id for id in ids if id in self._items}

    def existing_ids(self, ids: Iterable[str]) -> set[str]:
        """The ids that the pool has, however many; caches no items."""
        asked = set(ids)
        with self._lock:
            if self.open().indexed:
                return {item.id for item in self._find(list(asked))}
            return asked.intersection(self.open().ids())

    def _find(self, ids: list[str]) -> list[Item]:
        if not ids:
            return []
        try:
            return self.open().find(ids)
        except PoolError:  # it does not say which are missing
            existing = set(ids).intersection(self.open().ids())
            if len(existing) == len(ids):
                raise
            return self.open().find([id for id in ids if id in existing])

    def _cache(self, item: Item) -> None:
        self._items[item.id] = item
        self._bytes += _size(item)
        while len(self._items) > _MAX_ITEMS or (self._bytes > _MAX_BYTES and len(self._items) > 1):
            self._bytes -= _size(self._items.popitem(last=False)[1])


def _size(item: Item) -> int:
    """Bytes of the image inside an item."""
    if isinstance(item.read, ImageCell):
        return int(item.read.column.nbytes)
    arguments = item.read.args if isinstance(item.read, functools.partial) else ()
    return sum(len(argument) for argument in arguments if isinstance(argument, bytes))
