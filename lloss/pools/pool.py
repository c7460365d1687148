"""A pool: a fixed order of images, each with an id."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lloss.errors import PoolError
from lloss.images.decode import Raw
from lloss.pools.file_walk import PassedOver


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a pool.

    Attributes:
        id: the pool's own name for it; comes back unchanged everywhere.
        read: returns the encoded bytes or the array; ImageError when it cannot, PoolError when no
            other image could be read either.
        file: the image's own file, a local path as bytes or a URL; None within a larger file.
    """

    id: str
    read: Callable[[], Raw]
    file: bytes | str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Chunk:
    """Consecutive items of a pool from position ``start`` on."""

    start: int
    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        """The ids, in order."""
        return [item.id for item in self.items]

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        """Read all images at once, if the pool stores them as the rows of ``out``.

        Args:
            out: C-contiguous uint8 [M, H, W, 3] or [M, H, W], M at least ``len(self)``.

        Returns:
            Whether ``out[:len(self)]`` now holds the images; False where they are encoded or of
            another shape. PoolError where the file shrank or cannot be read any more.
        """
        return False


class Pool(ABC):
    """Images in a fixed order, each with a unique id.

    Attributes:
        uri: what it was opened by, without credentials.
        unique: whether duplicate ids are excluded, by how ids are made or a check at opening.
        remote: whether reading an item waits for a network, so that more readers help.
        streamed: whether listing reads the images too, as in a compressed or remote tar.
        indexed: whether :meth:`find` needs no listing and its items hold no image.
        beside: what its folder holds besides the pool's files.
    """

    uri: str
    unique: bool = False
    remote: bool = False
    streamed: bool = False
    indexed: bool = False
    beside: PassedOver = PassedOver()

    @abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """Every item, in the same order each time, without reading any image."""

    def ids(self) -> Iterator[str]:
        """Every id, in the order of the items; cheaper than those where it can be."""
        return (item.id for item in self)

    def count(self) -> int:
        """Count the items."""
        return sum(1 for _ in self.ids())

    @property
    def counted(self) -> bool:
        """Whether :meth:`count` is cheap compared with reading the images."""
        return not (self.streamed or self.remote)

    def passed_over(self) -> PassedOver | None:
        """Count what the last whole listing left out; None where that is not known cheaply."""
        return self.beside

    def remark(self) -> str:
        """One line on what :meth:`passed_over` counts; "" where that is nothing."""
        passed = self.passed_over()
        text = passed.text() if passed else ""
        return f"{self.uri}: {text}" if text else ""

    def fingerprint(self) -> str:
        """A digest that changes when the images do although their ids do not; "" without one.

        It is the same for a copy elsewhere. It does not cover files that lists and tables name.
        """
        return ""

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        """Yield a chunk for each range of positions, up to the end of the pool, in one pass.

        Args:
            ranges: of step 1, ascending and apart; there may be infinitely many.
        """
        items, position = iter(self), 0
        for wanted in ranges:
            items, position = self._skip_to(wanted.start, items, position)
            skipped = wanted.start - position
            chunk = list(itertools.islice(items, skipped, skipped + len(wanted)))
            if not chunk:
                return
            position = wanted.stop
            yield Chunk(wanted.start, chunk)

    def _skip_to(
        self, start: int, items: Iterator[Item], position: int
    ) -> tuple[Iterator[Item], int]:
        """Items from a position of at most ``start``; a pool that can jump does so here."""
        return items, position

    def find(self, ids: Iterable[str]) -> list[Item]:
        """Return the items of these ids in this order; PoolError for an unknown id."""
        wanted = list(ids)
        missing = set(wanted)
        found: dict[str, Item] = {}
        for item in self:
            if item.id in missing:
                found[item.id] = item
                missing.discard(item.id)
                if not missing:
                    break
        self.refuse_missing(wanted, missing)
        return [found[id] for id in wanted]

    def refuse_missing(self, ids: Iterable[str], missing: Collection[str]) -> None:
        """Raise a PoolError that names the first of ``ids`` that is missing, if any is."""
        if not missing:
            return
        first = next(id for id in ids if id in missing)
        example = next(iter(self), None)
        hint = f"; its ids look like {example.id!r}" if example else "; it is empty"
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise PoolError(f"id {first!r}{others} is not in the pool {self.uri}{hint}")


def refuse_duplicates(pool: Pool) -> None:
    """Raise PoolError where an id occurs twice. Pools with :attr:`Pool.unique` are not listed."""
    duplicate = None if pool.unique else first_duplicate(pool.ids)
    if duplicate is not None:
        raise PoolError(
            f"{pool.uri}: the id {duplicate!r} comes twice; ids are unique in a pool: rename one "
            "of the two"
        )


def first_duplicate(ids: Callable[[], Iterable[str]]) -> str | None:
    """The first id that occurred before; None when all differ.

    ``ids`` gives the same each time; it is called again only when two have the same 64-bit hash.
    """
    hashes = np.fromiter(map(hash, ids()), np.int64)
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: set[str] = set()
    for id in ids() if suspects else ():
        if id in seen:
            return id
        if hash(id) in suspects:
            seen.add(id)
    return None
