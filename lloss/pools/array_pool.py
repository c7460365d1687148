"""Rows of a ``.npy`` or ``.npz`` array."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import ImageError, PoolError
from lloss.pools.pool import Chunk, Item, Pool
from lloss.pools.storage import LocalPath, StoragePath
from lloss.pools.uri import without_secrets

_SAMPLED = 64
"""Rows that distinguish one array from another."""


class Rows:
    """The images of an array in memory: ``[N, H, W, 3]``, ``[N, H, W, 1]`` or ``[N, H, W]``."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, images: NDArray[Any]) -> None:
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def row(self, number: int) -> NDArray[Any]:
        """One image; a view where it can be."""
        return self.images[number]  # type: ignore[no-any-return]

    def read(self, start: int, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` with the rows from ``start`` on."""
        out[:] = self.images[start : start + len(out)]


class FileRows(Rows):
    """Rows of an array in a file, read by position.

    A memory map would count every page that was ever read as memory of the process, and take a
    page fault with the interpreter's lock held for each.
    """

    def __init__(
        self, path: StoragePath, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._file, self._offset = path.open_random(), offset
        self._row_bytes = math.prod(shape[1:])

    def row(self, number: int) -> NDArray[Any]:
        out = np.empty(self.shape[1:], np.uint8)
        self.read(number, out[None])
        return out

    def read(self, start: int, out: NDArray[np.uint8]) -> None:
        self._file.read_into(self._offset + start * self._row_bytes, out.reshape(-1).data)


class ArrayPool(Pool):
    """The rows of an array ``uint8 [N, H, W, 3]`` or ``[N, H, W]``; the id is the row number."""

    unique = True
    indexed = True

    def __init__(self, images: NDArray[Any] | Rows, uri: str, remote: bool = False) -> None:
        self.rows = Rows(images) if isinstance(images, np.ndarray) else images
        dtype, shape = self.rows.dtype, self.rows.shape
        if dtype != np.uint8:
            raise PoolError(f"{uri}: an array of {dtype}; images are uint8, 0 to 255")
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
            raise PoolError(
                f"{uri}: an array of shape {list(shape)} cannot be resized to a model's "
                "input; images are [N, H, W] or [N, H, W, 3]"
            )
        if len(shape) == 3 and (shape[2] in (1, 3, 4) or shape[0] == 3):
            raise PoolError(
                f"{uri}: an array of shape {list(shape)} looks like one image; images are "
                "[N, H, W, 3], so one image is [1, H, W, 3], and grey images are [N, H, W, 1]"
            )
        self.uri = uri
        self.remote = remote

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, range(self.count()))

    def _item(self, number: int) -> Item:
        return Item(str(number), functools.partial(self.rows.row, number))

    def ids(self) -> Iterator[str]:
        return map(str, range(self.count()))

    def count(self) -> int:
        return self.rows.shape[0]

    def fingerprint(self) -> str:
        """Digest the shape and some rows: another array has the same row numbers."""
        digest = hashlib.sha256(repr(self.rows.shape).encode())
        for number in np.unique(np.linspace(0, self.count() - 1, _SAMPLED).astype(int)).tolist():
            digest.update(self.rows.row(number).tobytes())
        return digest.hexdigest()

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        return self.chunks_of(np.arange(self.count()), ranges)

    def chunks_of(self, kept: NDArray[np.int64], ranges: Iterable[range]) -> Iterator[Chunk]:
        """:meth:`chunks` of some rows alone, whose numbers ascend; ranges count those."""
        for wanted in ranges:
            numbers = kept[wanted.start : wanted.stop]
            if not len(numbers):
                return
            items = [self._item(number) for number in numbers.tolist()]
            yield _RowChunk(wanted.start, items, self.rows, numbers)

    def find(self, ids: Iterable[str]) -> list[Item]:
        wanted = list(ids)
        self.refuse_missing(wanted, {id for id in wanted if not self.holds(id)})
        return [self._item(int(id)) for id in wanted]

    def holds(self, id: str) -> bool:
        """Whether this is the decimal number of a row."""
        short = len(id) <= len(str(self.count()))  # int() refuses thousands of digits
        decimal = short and id.isascii() and id.isdecimal()
        return decimal and str(int(id)) == id and int(id) < self.count()


@dataclass(frozen=True)
class _RowChunk(Chunk):
    rows: Rows
    numbers: NDArray[np.int64]

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        fits = out.shape[1:] == self.rows.shape[1:] and out.dtype == np.uint8
        if not (fits and out.flags.c_contiguous):
            return False
        done = 0
        for run in np.split(self.numbers, np.flatnonzero(np.diff(self.numbers) > 1) + 1):
            try:
                self.rows.read(int(run[0]), out[done : done + len(run)])
            except ImageError as error:  # a disk that fails
                raise PoolError(f"rows {run[0]} to {run[-1]}: {error}") from error
            done += len(run)
        return True


def open_array(path: StoragePath, uri: str) -> ArrayPool:
    """Open an array file; the rows of a ``.npy`` are read by position, a ``.npz`` is loaded whole.

    A ``.npz`` holds one array, or one of the name ``images``. PoolError where the file is damaged,
    needs pickle, or has no array of images.
    """
    with path.open() as file, _array_errors(path):
        plain = path.suffix == ".npy" and np.lib.format.read_magic(file) == (1, 0)
        header = np.lib.format.read_array_header_1_0(file) if plain else None
        if header is None or header[1]:  # of Fortran order
            return ArrayPool(_loaded(file, path, "images"), uri)
        shape, _, dtype = header
        offset, size = file.tell(), file.seek(0, os.SEEK_END)
        wanted = offset + math.prod(shape) * dtype.itemsize
        if size < wanted:
            raise ValueError(f"it has {size} bytes, its header promises {wanted}")
    return ArrayPool(FileRows(path, offset, shape, dtype), uri, path.remote)


def load_array(file: Path, name: str) -> NDArray[Any]:
    """Load the array of this name of a ``.npz``; else PoolError."""
    path = LocalPath(file)
    with path.open() as opened, _array_errors(path):
        return _loaded(opened, path, name)


@contextlib.contextmanager
def _array_errors(path: StoragePath) -> Iterator[None]:
    try:
        yield
    except PoolError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise nearly anything on a broken file
        reason = without_secrets(str(error))
        raise PoolError(f"{path}: not a readable array file: {reason}") from error


def _loaded(file: IO[bytes], path: StoragePath, name: str) -> NDArray[Any]:
    """The array of a ``.npy``, or one of a ``.npz`` by its name; its only one as ``images``."""
    file.seek(0)
    if path.suffix == ".npy":
        return np.lib.format.read_array(file, allow_pickle=False)
    with np.load(file, allow_pickle=False) as archive:
        keys = archive.files
        if len(keys) == 1 and name == "images":
            name = keys[0]
        if name not in keys:
            found = ", ".join(keys) or "none"
            raise PoolError(f"{path}: has no array {name!r} (it has {found})")
        return archive[name]  # type: ignore[no-any-return]
