"""Rows of a ``.npy`` or ``.npz`` array."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import NDArray

from lloss.errors import ImageError, PoolError
from lloss.pools.pool import Chunk, Item, Pool
from lloss.pools.storage import LocalPath, RandomFile, StoragePath

_SAMPLED = 64
"""Rows that tell one array from another."""


class Rows(ABC):
    """The images of an array, wherever it is.

    Attributes:
        shape: of the whole, ``(N, H, W, 3)`` or ``(N, H, W)``.
        dtype: uint8, or what the array pool will refuse.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def row(self, number: int) -> NDArray[Any]:
        """One image."""

    @abstractmethod
    def read(self, start: int, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` with the rows from ``start`` on."""


class MemoryRows(Rows):
    """Rows of an array in memory."""

    def __init__(self, images: NDArray[Any]) -> None:
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def row(self, number: int) -> NDArray[Any]:
        """A view of it."""
        return self.images[number]  # type: ignore[no-any-return]

    def read(self, start: int, out: NDArray[np.uint8]) -> None:
        """Copies."""
        out[:] = self.images[start : start + len(out)]


class FileRows(Rows):
    """Rows of an array in a file, read by position.

    A memory map would count every page that was ever read as memory of the process, and take a
    page fault with the interpreter's lock held for each.
    """

    def __init__(self, place: StoragePath, file: RandomFile, layout: _Layout) -> None:
        self.shape, self.dtype = layout.shape, layout.dtype
        self._place, self._file, self._offset = place, file, layout.offset
        self._row = math.prod(layout.shape[1:]) * layout.dtype.itemsize

    def row(self, number: int) -> NDArray[Any]:
        """A fresh array."""
        out = np.empty(self.shape[1:], np.uint8)
        self.read(number, out[None])
        return out

    def read(self, start: int, out: NDArray[np.uint8]) -> None:
        """Reads straight into ``out``."""
        wanted = out.reshape(-1).data
        if self._file.read_into(self._offset + start * self._row, wanted) < len(wanted):
            raise PoolError(f"{self._place}: the file became shorter while it was read")


class ArrayPool(Pool):
    """The rows of an array ``uint8 [N, H, W, 3]`` or ``[N, H, W]``; the id is the row number."""

    unique = True
    indexed = True

    def __init__(self, images: NDArray[Any] | Rows, uri: str, remote: bool = False) -> None:
        self.rows = images if isinstance(images, Rows) else MemoryRows(images)
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
        return iter(_RowItems(self.rows, range(self.count())))

    def ids(self) -> Iterator[str]:
        """The row numbers."""
        return map(str, range(self.count()))

    def count(self) -> int:
        """The array's length."""
        return self.rows.shape[0]

    def fingerprint(self) -> str:
        """The shape and a digest of some rows: another array has the same row numbers."""
        digest = hashlib.sha256(repr(self.rows.shape).encode())
        for number in np.unique(np.linspace(0, self.count() - 1, _SAMPLED).astype(int)).tolist():
            digest.update(self.rows.row(number).tobytes())
        return digest.hexdigest()

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        """See :meth:`Pool.chunks`; here nothing is passed over."""
        for wanted in ranges:
            held = range(wanted.start, min(wanted.stop, self.count()))
            if not held:
                return
            yield _RowChunk(held.start, _RowItems(self.rows, held), self.rows)

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here by index."""
        wanted = list(ids)
        self.refuse_missing(wanted, {id for id in wanted if not self.holds(id)})
        return [_item(self.rows, int(id)) for id in wanted]

    def holds(self, id: str) -> bool:
        """Whether this is the number of a row, as it is written here."""
        short = len(id) <= len(str(self.count()))  # int() refuses thousands of digits
        return (
            short
            and id.isascii()
            and id.isdecimal()
            and str(int(id)) == id
            and int(id) < self.count()
        )


def _item(rows: Rows, number: int) -> Item:
    return Item(str(number), functools.partial(rows.row, number))


class _RowItems(Sequence[Item]):
    """Items of successive rows, made as they are asked for."""

    def __init__(self, rows: Rows, numbers: range) -> None:
        self._rows, self._numbers = rows, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> _RowItems: ...
    def __getitem__(self, index: int | slice) -> Item | _RowItems:
        if isinstance(index, slice):
            return _RowItems(self._rows, self._numbers[index])
        return _item(self._rows, self._numbers[index])


@dataclass(frozen=True)
class _RowChunk(Chunk):
    rows: Rows

    @property
    def ids(self) -> list[str]:
        return [str(number) for number in range(self.start, self.start + len(self))]

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        if out.shape[1:] != self.rows.shape[1:] or out.dtype != np.uint8:
            return False
        if not out.flags.c_contiguous:
            return False
        try:
            self.rows.read(self.start, out[: len(self)])
        except ImageError as error:  # a disk that fails
            raise PoolError(
                f"rows {self.start} to {self.start + len(self) - 1}: {error}"
            ) from error
        return True


@dataclass(frozen=True)
class _Layout:
    """Where an array's bytes lie plain in a file."""

    offset: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_array(place: StoragePath, uri: str, name: str = "images") -> ArrayPool:
    """The pool of an array file's rows; they are read by position where they lie plain in it.

    Args:
        place: the file.
        uri: what to call the pool.
        name: the array's name in a ``.npz``; a ``.npz`` of one array needs none.

    Raises:
        PoolError: the file is damaged, needs pickle, has no such array, or one of no images.
    """
    with _readable(place.uri), place.open() as file:
        member = None if place.suffix == ".npy" else _member(file, name, place.uri)
        layout = _layout(file, member)
        if layout is None or layout.fortran:
            return ArrayPool(MemoryRows(_loaded(file, member)), uri)
        _check_length(layout, place.size())
        return ArrayPool(FileRows(place, place.open_random(), layout), uri, place.remote)


def load_array(path: Path, name: str) -> NDArray[Any]:
    """An array of a ``.npy`` or ``.npz`` file, memory-mapped where its bytes lie plain on disk.

    Args:
        path: the file.
        name: the array's name in a ``.npz``; a ``.npz`` of one array needs none.

    Raises:
        PoolError: the file is damaged, needs pickle, or has no such array.
    """
    with _readable(str(path)), LocalPath(path).open() as file:
        member = None if path.suffix.lower() == ".npy" else _member(file, name, str(path))
        layout = _layout(file, member)
        if layout is None:
            return _loaded(file, member)
        mapped: NDArray[Any] = np.memmap(
            path, layout.dtype, "r", layout.offset, layout.shape, "F" if layout.fortran else "C"
        )
        return mapped


@contextlib.contextmanager
def _readable(uri: str) -> Iterator[None]:
    try:
        yield
    except PoolError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise nearly anything on a broken file
        raise PoolError(f"{uri}: not a readable array file: {error}") from error


def _check_length(layout: _Layout, size: int) -> None:
    wanted = layout.offset + layout.nbytes
    if size < wanted:
        raise ValueError(f"it has {size} bytes, its header promises {wanted}")


def _member(file: IO[bytes], name: str, uri: str) -> str:
    """The array's key in a ``.npz``."""
    with np.load(file, allow_pickle=False) as held:
        keys = held.files
    if name in keys:
        return name
    if len(keys) == 1 and name == "images":
        return str(keys[0])
    raise PoolError(f"{uri}: has no array {name!r} (it has {', '.join(keys) or 'none'})")


def _loaded(file: IO[bytes], member: str | None) -> NDArray[Any]:
    file.seek(0)
    if member is None:
        return np.lib.format.read_array(file, allow_pickle=False)
    with np.load(file, allow_pickle=False) as held:
        return held[member]  # type: ignore[no-any-return]


def _layout(file: IO[bytes], member: str | None) -> _Layout | None:
    """Where the array's bytes are; None when they are deflated, or of a rare format."""
    if member is None:
        file.seek(0)
        return _header(file, 0)
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{member}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return None
    # The local header's own name and extra fields may be longer than the directory's.
    file.seek(info.header_offset + 26)
    lengths = np.frombuffer(file.read(4), "<u2").tolist()
    start = info.header_offset + 30 + sum(lengths)
    file.seek(start)
    head = io.BytesIO(file.read(1 << 16))
    found = _header(head, start)
    return None if found is None or found.fortran else found


def _header(file: IO[bytes], start: int) -> _Layout | None:
    version = np.lib.format.read_magic(file)
    if version > (2, 0):
        return None
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which need pickle")
    return _Layout(start + file.tell(), shape, fortran, dtype)
