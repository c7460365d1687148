"""What a pool is: a fixed order of items."""

from __future__ import annotations

import itertools
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lloss.errors import ImageError, PoolError
from lloss.images.decode import Raw
from lloss.pools.confinement import OUTSIDE
from lloss.pools.file_walk import PassedOver
from lloss.pools.read_failures import Root, failure


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a pool.

    Attributes:
        id: the pool's own name for it; comes back unchanged everywhere.
        read: returns the encoded bytes or the array; raises :class:`ImageError` when it
            cannot, and :class:`PoolError` when no other image could be read either.
        file: the image's own file: a path of this machine as bytes, or a URL as text; None for
            an image within a larger file.
    """

    id: str
    read: Callable[[], Raw]
    file: bytes | str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Chunk:
    """Items of a pool that stand one after another.

    Attributes:
        start: the position of the first one in the pool.
        items: they; may be made one by one as they are asked for.
    """

    start: int
    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> list[str]:
        """The ids, in order."""
        return [item.id for item in self.items]

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        """Read all images at once, where they lie in the file as the rows of ``out``.

        Args:
            out: C-contiguous uint8 [M, H, W, 3] or [M, H, W], M at least ``len(self)``.

        Returns:
            Whether ``out[:len(self)]`` now holds the images. False, and nothing is read, where
            they are encoded or of another shape: then read them item by item.

        Raises:
            PoolError: the file shrank or cannot be read any more.
        """
        return False


class Pool(ABC):
    """Images in a fixed order, each with a unique id.

    Attributes:
        uri: what it was opened by, without credentials.
        unique: whether no id can come twice, by how the ids are made or by a check at opening.
            Where False, whoever writes the ids down has to look.
        remote: whether reading an item waits for a network, so that more readers help.
        streamed: whether listing reads the images too, as in a compressed or remote tar: then
            counting costs a reading of the whole.
        counted: whether :meth:`count` is cheap beside the reading of the images. Where False it
            lists a store, opens each of many remote files, or reads the whole: nobody should wait
            for that before the first image, only to show how far the work is.
        beside: what its folder holds besides the pool's files.
    """

    uri: str
    unique: bool = False
    remote: bool = False
    streamed: bool = False
    counted: bool = True
    beside: PassedOver = PassedOver()

    @abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """Every item, in the same order each time, without reading any image."""

    def ids(self) -> Iterator[str]:
        """Every id, in the order of the items; cheaper than those where it can be."""
        return (item.id for item in self)

    def count(self) -> int:
        """How many items there are; by default found by listing them."""
        return sum(1 for _ in self.ids())

    def passed_over(self) -> PassedOver | None:
        """What the last whole listing left out by its name; None where that is not known cheaply.

        A list or a table names each of its images and leaves out none.
        """
        return self.beside

    def remark(self) -> str:
        """One line on what :meth:`passed_over` counts; "" where that is nothing."""
        passed = self.passed_over()
        text = passed.text() if passed else ""
        return f"{self.uri}: {text}" if text else ""

    def fingerprint(self) -> str:
        """What changes when the images do although their ids do not; "" where that is not cheap.

        It is the same for a copy of the pool under another path. Tables and shards are told by
        size and a little content of each file, remote ones by the store's size and tag; arrays by
        some rows; a list by its text. Of folders, and of the files that lists and tables name,
        the names alone are compared: an image replaced under its name is not noticed.
        """
        return ""

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        """The items at these positions, a chunk a range, in one pass over the pool.

        Args:
            ranges: of step 1, ascending and apart; there may be infinitely many.

        Yields:
            A chunk for each range, with fewer items where the pool ends in it; none any more from
            the first range on that lies beyond the end.
        """
        items, position = iter(self), 0
        for wanted in ranges:
            skipped = wanted.start - position
            chunk = list(itertools.islice(items, skipped, skipped + len(wanted)))
            if not chunk:
                return
            position = wanted.stop
            yield Chunk(wanted.start, chunk)

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


MAX_ENCODED = 1 << 30
"""Bytes of an encoded image; what is larger is refused before it is read. Twice what the most
pixels that are decoded take as plain RGB."""

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Not blocking: nobody may ever write to a pipe by an image's name."""


def check_encoded(size: int) -> None:
    """Refuse an encoded image that would fill the memory.

    Args:
        size: in bytes, as its file, shard, table or store tells it.

    Raises:
        ImageError: it is over :data:`MAX_ENCODED`.
    """
    if size > MAX_ENCODED:
        raise ImageError(f"has {size} bytes, over the limit of {MAX_ENCODED} for an encoded image")


def read_file(path: str | bytes | Path, root: Root | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        path: of the file.
        root: the folder of its pool, if it is of one.

    Raises:
        ImageError: it cannot be read, is over :data:`MAX_ENCODED`, is a folder, a pipe or a
            device, or lies outside of where ``root`` must be.
        PoolError: no other could be read either: a disk or a network fails, or ``root`` is gone.
    """
    try:
        file = os.open(path, _OPEN)
        try:
            within = None if root is None else root.within
            if within is not None and not within.holds_file(file, path):
                raise ImageError(OUTSIDE)
            return _read_regular(file)
        finally:
            os.close(file)
    except OSError as error:
        raise failure(error, path, root) from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"cannot be read: {error}") from error


def _read_regular(file: int) -> bytes:
    status = os.fstat(file)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ImageError("is no regular file")
    if status.st_size > MAX_ENCODED:
        check_encoded(status.st_size)
    data = os.read(file, status.st_size + 1)
    if len(data) == status.st_size:
        return data
    # It grows, or a read gives two gigabytes at most.
    parts, size = [data], len(data)
    while part := os.read(file, 1 << 20):
        parts.append(part)
        size += len(part)
        check_encoded(size)
    return b"".join(parts)
