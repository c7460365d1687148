"""Where images come from.

A pool is a fixed order of items, each an id and a way to read the image. Listing a pool reads no
image, so that a pool of millions costs what its listing costs, and any item can be read by any
thread. Kinds are told apart by :func:`open_pool`; a new kind (tar shards, Parquet, object stores)
is one more class with :meth:`Pool.__iter__`.
"""

from __future__ import annotations

import csv
import functools
import itertools
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import ImageError, PoolError
from lloss.images import Raw

SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"]
)
"""What counts as an image file in a folder (compared in lower case)."""


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


class FolderPool(Pool):
    """Every image file below a folder; the id is the path relative to it, with ``/``.

    Folders are walked depth first, each in the order of its names, so that the order is the same
    on any machine and only one folder's names are held at a time.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def __iter__(self) -> Iterator[Item]:
        for path, id in self._walk(self.root, "", ()):
            yield Item(id, functools.partial(_read_file, path))

    def _walk(
        self, folder: Path, prefix: str, parents: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[Path, str]]:
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in parents:  # a symbolic link back to a folder that we are inside of
                return
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise PoolError(f"{folder}: cannot be listed: {error.strerror}") from error
        for entry in listed:
            id = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            if entry.is_dir():
                yield from self._walk(Path(entry.path), f"{id}/", (*parents, here))
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                yield Path(entry.path), id

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here an id is its path, so nothing is listed."""
        wanted = list(ids)
        paths = [self.root / id for id in wanted]
        inside = [_is_plain_relative(id) and path.is_file() for id, path in zip(wanted, paths)]
        if not all(inside):
            return super().find(wanted)  # an escaped name, or an error that names the id
        return [Item(id, functools.partial(_read_file, path)) for id, path in zip(wanted, paths)]


class ArrayPool(Pool):
    """The rows of an array ``uint8 [N, H, W, 3]`` or ``[N, H, W]``; the id is the row number."""

    def __init__(self, images: NDArray[Any], uri: str) -> None:
        if images.dtype != np.uint8:
            raise PoolError(f"{uri}: an array of {images.dtype}; images are uint8, 0 to 255")
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise PoolError(
                f"{uri}: an array of shape {list(images.shape)} cannot be resized to a model's "
                "input; images are [N, H, W] or [N, H, W, 3]"
            )
        self.images = images
        self.uri = uri

    def __iter__(self) -> Iterator[Item]:
        return (self._item(row) for row in range(len(self.images)))

    def _item(self, row: int) -> Item:
        return Item(str(row), functools.partial(self.images.__getitem__, row))

    def count(self) -> int:
        """The array's length."""
        return len(self.images)

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here by index."""
        wanted = list(ids)
        unknown = [id for id in wanted if not self._holds(id)]
        if unknown:
            self._refuse(unknown[0], len(unknown))
        return [self._item(int(id)) for id in wanted]

    def _holds(self, id: str) -> bool:
        return id.isascii() and id.isdecimal() and str(int(id)) == id and int(id) < len(self.images)


class ListPool(Pool):
    """The files named by a text file (a path a line) or by a CSV with a column ``path``.

    Paths are relative to the list's folder. The id is the path as written, or the column ``id``.
    """

    def __init__(self, listing: Path) -> None:
        self.listing = listing
        self.uri = str(listing)
        self._paths = _csv_paths(listing) if listing.suffix == ".csv" else _text_paths(listing)

    def __iter__(self) -> Iterator[Item]:
        return (self._item(id) for id in self._paths)

    def _item(self, id: str) -> Item:
        path = self.listing.parent / self._paths[id]
        return Item(id, functools.partial(_read_file, path))

    def count(self) -> int:
        """The list's length."""
        return len(self._paths)

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here by look-up."""
        wanted = list(ids)
        unknown = [id for id in wanted if id not in self._paths]
        if unknown:
            self._refuse(unknown[0], len(unknown))
        return [self._item(id) for id in wanted]


class ItemsPool(Pool):
    """Items that are at hand already, such as a labeled data set seen as a pool."""

    def __init__(self, items: Iterable[Item], uri: str) -> None:
        self.items = list(items)
        self.uri = uri

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def count(self) -> int:
        """The list's length."""
        return len(self.items)


class RestPool(Pool):
    """A pool without some of its ids, such as the labeled ones."""

    def __init__(self, pool: Pool, without: Iterable[str]) -> None:
        self.pool = pool
        self.without = frozenset(without)
        self.uri = pool.uri

    def __iter__(self) -> Iterator[Item]:
        return (item for item in self.pool if item.id not in self.without)


def open_pool(uri: str | Path) -> Pool:
    """Open a folder, a ``.npy``/``.npz`` array, or a ``.txt``/``.csv`` list of paths.

    Raises:
        PoolError: nothing is there, it is of no known kind, or it holds no image.
    """
    path = Path(uri)
    pool = _opened(path)
    if next(iter(pool), None) is None:
        kinds = " ".join(sorted(SUFFIXES))
        looked = f" (looked for {kinds})" if path.is_dir() else ""
        raise PoolError(f"{path}: the pool holds no image{looked}")
    return pool


def _opened(path: Path) -> Pool:
    if path.is_dir():
        return FolderPool(path)
    if not path.exists():
        raise PoolError(f"{path}: no such pool; give a folder, .npy, .npz, .txt or .csv")
    if path.suffix in (".npy", ".npz"):
        return ArrayPool(load_array(path, "images"), str(path))
    if path.suffix in (".txt", ".csv"):
        return ListPool(path)
    raise PoolError(f"{path}: no known kind of pool; give a folder, .npy, .npz, .txt or .csv")


def load_array(path: Path, name: str) -> NDArray[Any]:
    """An array of a ``.npy`` or ``.npz`` file, memory-mapped where its bytes lie plain on disk.

    Args:
        path: the file.
        name: the array's name in a ``.npz``; a ``.npz`` of one array needs none.

    Raises:
        PoolError: the file is damaged, needs pickle, or has no such array.
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        with np.load(path, allow_pickle=False) as file:
            if name not in file.files and not (len(file.files) == 1 and name == "images"):
                held = ", ".join(file.files) or "none"
                raise PoolError(f"{path}: has no array {name!r} (it has {held})")
            key = name if name in file.files else file.files[0]
        mapped = _mapped_member(path, f"{key}.npy")
        if mapped is not None:
            return mapped
        with np.load(path, allow_pickle=False) as file:
            return file[key]  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PoolError(f"{path}: not a readable array file: {error}") from error


def _mapped_member(path: Path, member: str) -> NDArray[Any] | None:
    """A stored (not deflated) member of a ``.npz`` as a memory map; None when it is deflated."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            if version > (2, 0):
                return None
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(stream)
            header = stream.tell()
    with path.open("rb") as file:
        # The local header's own name and extra fields may be longer than the directory's.
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    start = info.header_offset + 30 + sum(np.frombuffer(lengths, "<u2").tolist())
    if dtype.hasobject or fortran:
        return None
    return np.memmap(path, dtype, "r", start + header, shape)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error


def _is_plain_relative(id: str) -> bool:
    parts = id.split("/")
    return "\0" not in id and not any(part in ("", ".", "..") for part in parts)


def _text_paths(listing: Path) -> dict[str, str]:
    paths: dict[str, str] = {}
    with _text_of(listing) as file:
        numbers = itertools.count(1)
        rows = ((number, line.rstrip("\r\n")) for number, line in zip(numbers, file))
        _collect(paths, ((n, line, line) for n, line in rows if line), listing)
    return paths


def _csv_paths(listing: Path) -> dict[str, str]:
    paths: dict[str, str] = {}
    with _text_of(listing) as file:
        table = csv.DictReader(file)
        if "path" not in (table.fieldnames or ()):
            named = ", ".join(table.fieldnames or ()) or "none"
            raise PoolError(f"{listing}: a list of images needs a column 'path' (it has: {named})")
        key = "id" if "id" in (table.fieldnames or ()) else "path"
        rows = ((table.line_num, row[key] or "", row["path"] or "") for row in table)
        _collect(paths, rows, listing)
    return paths


def _text_of(listing: Path) -> Any:
    try:
        return listing.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise PoolError(f"{listing}: cannot be read: {error.strerror}") from error


def _collect(paths: dict[str, str], rows: Iterable[tuple[int, str, str]], listing: Path) -> None:
    lines: dict[str, int] = {}
    try:
        for number, id, path in rows:
            if not id or not path:
                raise PoolError(f"{listing}, line {number}: an empty id or path")
            if id in lines:
                raise PoolError(
                    f"{listing}: the id {id!r} stands in line {lines[id]} and in line {number}; "
                    "ids are unique in a pool"
                )
            lines[id] = number
            paths[id] = path
    except UnicodeDecodeError as error:
        raise PoolError(f"{listing}: not UTF-8 text: {error.reason}") from error
