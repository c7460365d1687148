"""What a pool is: a fixed order of items."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lloss.errors import ImageError, PoolError
from lloss.images import Raw


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a pool.

    Attributes:
        id: the pool's own name for it; comes back unchanged everywhere.
        read: returns the encoded bytes or the array; raises :class:`ImageError` when it cannot.
    """

    id: str
    read: Callable[[], Raw]


class Pool(ABC):
    """Images in a fixed order, each with a unique id."""

    uri: str

    @abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """Every item, in the same order each time, without reading any image."""

    def count(self) -> int:
        """How many items there are; by default found by listing them."""
        return sum(1 for _ in self)

    def find(self, ids: Iterable[str]) -> list[Item]:
        """The items of these ids, in the order given.

        Raises:
            PoolError: some id is not in the pool.
        """
        wanted = list(ids)
        missing = set(wanted)
        found: dict[str, Item] = {}
        for item in self:
            if item.id in missing:
                found[item.id] = item
                missing.discard(item.id)
                if not missing:
                    break
        if missing:
            self._refuse(next(id for id in wanted if id in missing), len(missing))
        return [found[id] for id in wanted]

    def _refuse(self, id: str, count: int) -> None:
        example = next(iter(self), None)
        hint = f"; its ids look like {example.id!r}" if example else "; it is empty"
        others = f" (and {count - 1} more)" if count > 1 else ""
        raise PoolError(f"id {id!r}{others} is not in the pool {self.uri}{hint}")


class RestPool(Pool):
    """A pool without some of its ids, such as the labeled ones."""

    def __init__(self, pool: Pool, without: Iterable[str]) -> None:
        self.pool = pool
        self.without = frozenset(without)
        self.uri = pool.uri

    def __iter__(self) -> Iterator[Item]:
        return (item for item in self.pool if item.id not in self.without)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a device by an image's name would block for ever."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ImageError("is no regular file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"cannot be read: {error}") from error
