"""Files and folders of pools: on this machine, or behind fsspec (see ``remote_storage``).

The kinds of pools are written against :class:`StoragePath`, so that each of them works on either.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias

from lloss.errors import PoolError
from lloss.pools.confinement import OUTSIDE, Confinement
from lloss.pools.image_files import ImageRoot, read_error, read_file
from lloss.pools.pool import Item
from lloss.pools.uri import is_url

FileName: TypeAlias = bytes | str
"""A path of this machine as bytes, or a URL as text."""

_SAMPLE = 4 << 10
"""Bytes at the beginning and in the middle of a file that distinguish it from another."""
_SAMPLE_END = 16 << 10
"""Bytes at its end: tar fills its last 10 KiB up with zeros."""
_FOOTER_MOST = 64 << 20

SHRANK = "the file became shorter while it was read"

_TRIED = 8
"""Images looked for before a listing's own folder is taken for theirs."""


class RandomFile(Protocol):
    """A file that many threads read at any offset: there is no shared position."""

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` (bytes) from ``offset`` on; PoolError where the file ends before."""


class StoragePath(ABC):
    """A file or a folder.

    Attributes:
        uri: for messages; without credentials.
        remote: whether reading it takes a network.
        within: what it, and all that is reached from it, must be in to be read; None for anywhere.
    """

    uri: str
    remote: bool
    within: Confinement | None = None

    def __str__(self) -> str:
        return self.uri

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The whole path split up, the name last."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.parts[-1] if self.parts else ""

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on, in lower case."""
        return os.path.splitext(self.name)[1].lower()  # noqa: PTH122  the name is not a path

    @property
    @abstractmethod
    def parent(self) -> StoragePath:
        """The folder it is in."""

    @abstractmethod
    def at(self, path: str) -> StoragePath:
        """Resolve a path relative to here."""

    @abstractmethod
    def kind(self) -> Literal["file", "folder", ""]:
        """Look what is there; empty where nothing is."""

    def identity(self) -> tuple[int, int] | None:
        """Device and inode, which find a folder again behind links; None without them."""
        return None

    @abstractmethod
    def entries(
        self, keeps: Callable[[str, bool], bool]
    ) -> Iterator[tuple[str, FileName, StoragePath | None]]:
        """Name, file name and, of a folder, path of each entry, in the order of the names' bytes.

        ``keeps`` says whether to keep an entry, by its name and whether it is a folder. PoolError
        where the folder cannot be listed, or two names cannot be distinguished.
        """

    @abstractmethod
    def existing(self, paths: Collection[str]) -> set[str]:
        """Those of these relative paths where files are."""

    @abstractmethod
    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Open the file for seeking and reading; PoolError where it cannot be read."""

    @abstractmethod
    def open_random(self) -> RandomFile:
        """Open the file for many threads; PoolError where it cannot be read."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of size and samples, or the store's tag; PoolError where it is gone."""

    @abstractmethod
    def image(self, path: str, id: str = "", file: FileName | None = None) -> Item:
        """The image file at a relative path as an item.

        ``id`` is the path by default; ``file`` is its file name where that is known.
        """


class LocalPath(StoragePath):
    """A path of this machine."""

    remote = False

    def __init__(self, path: Path, within: Confinement | None = None) -> None:
        self.path = path
        self.uri = str(path)
        self.within = within

    @property
    def parts(self) -> tuple[str, ...]:
        return self.path.absolute().parts

    @property
    def parent(self) -> LocalPath:
        return LocalPath(self.path.parent, self.within)

    def at(self, path: str) -> LocalPath:
        return LocalPath(self.path / path, self.within)

    def kind(self) -> Literal["file", "folder", ""]:
        if os.path.isdir(self.path):  # noqa: PTH112  Path.is_dir() raises on a long name
            return "folder"
        return "file" if os.path.exists(self.path) else ""  # noqa: PTH110

    def identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino

    def entries(
        self, keeps: Callable[[str, bool], bool]
    ) -> Iterator[tuple[str, bytes, LocalPath | None]]:
        if self.within is not None and not self.within.holds_path(self.path):
            raise PoolError(f"{self.path}: {OUTSIDE}; remove that link")
        here = os.fsencode(self.path)
        try:
            names, folders = _listed(here, keeps)
        except OSError as error:
            raise PoolError(f"{self.path}: cannot be listed: {error.strerror}") from error
        escaped: dict[str, bytes] = {}
        for name in names:
            shown, inner = _shown(name), None
            if "\\" in shown and escaped.setdefault(shown, name) != name:
                raise PoolError(
                    f"{self.path}: two names read {shown!r}, one of which is not UTF-8; rename one"
                )
            if name in folders:
                inner = LocalPath(self.path / os.fsdecode(name), self.within)
            yield shown, os.path.join(here, name), inner  # noqa: PTH118

    def existing(self, paths: Collection[str]) -> set[str]:
        return {path for path in paths if os.path.isfile(self._file(path))}  # noqa: PTH113

    def _file(self, path: str) -> bytes:
        return os.fsencode(os.path.join(self.path, path))  # noqa: PTH118  for each image

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        with self.opened() as file:
            try:
                yield file
            except OSError as error:
                raise self._unreadable(error) from error

    def opened(self) -> IO[bytes]:
        """The open file, for the caller to close."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise PoolError(f"{self.path}: is not a regular file")
            file = self.path.open("rb")
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        if self.within is not None and not self.within.holds_file(file.fileno(), self.path):
            file.close()
            raise PoolError(f"{self.path}: {OUTSIDE}")
        return file

    def open_random(self) -> RandomFile:
        return _LocalFile(self)

    def fingerprint(self) -> str:
        """Digest the size, and the bytes of beginning, middle and end (Parquet: whole footer)."""
        with self.open() as file:
            size = os.fstat(file.fileno()).st_size
            end = _footer(file, size) if self.suffix == ".parquet" else _SAMPLE_END
            digest = hashlib.sha256(str(size).encode())
            for at, length in ((0, _SAMPLE), (size // 2, _SAMPLE), (max(size - end, 0), end)):
                file.seek(at)
                digest.update(file.read(length))
        return digest.hexdigest()

    @functools.cached_property
    def _root(self) -> ImageRoot:
        return ImageRoot(self.path, self.within)

    def image(self, path: str, id: str = "", file: FileName | None = None) -> Item:
        file = file or self._file(path)  # bytes, which need not be UTF-8
        return Item(id or path, functools.partial(read_file, file, self._root), file=file)

    def _unreadable(self, error: Exception) -> PoolError:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return PoolError(f"{self.path}: cannot be read: {reason}")


class _LocalFile:
    """Reads by position, past Python's buffers and without the interpreter's lock."""

    def __init__(self, path: LocalPath) -> None:
        self.path = path.path
        self._file: Any = path.opened()
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    def read_into(self, offset: int, out: memoryview) -> None:
        while len(out):
            try:
                count = self._read_some(offset, out)
            except OSError as error:
                raise read_error(error, self.path) from error
            if not count:
                raise PoolError(f"{self.path}: {SHRANK}")
            offset, out = offset + count, out[count:]

    def _read_some(self, offset: int, out: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [out], offset)
        with self._lock:  # Windows has no such call
            self._file.seek(offset)
            return int(self._file.readinto(out))


def storage_path(path: str, within: Confinement | None = None) -> StoragePath:
    """The storage path of a path or a URL without options; nothing is opened yet."""
    if is_url(path):
        from lloss.pools.remote_storage import remote_path  # fsspec is an extra

        return remote_path(path, within)
    return LocalPath(Path(path), within)


def image_folder(listing: StoragePath, names: Sequence[str], asked: str = "") -> StoragePath:
    """Find the folder of the images that a file names.

    That is ``asked``, relative to the file's folder; or the first of the file's folder, ``images``
    in it and ``images`` beside it that holds one of the first images; or the file's folder.
    """
    if isinstance(listing, LocalPath):
        listing = LocalPath(listing.path.absolute(), listing.within)
    folder = listing.parent
    if asked:
        return folder.at(asked)
    candidates = (folder, folder.at("images"), folder.parent.at("images"))
    for name in names[:_TRIED]:
        for candidate in candidates:
            if candidate.at(name).kind() == "file":
                return candidate
    return folder


def _listed(folder: bytes, keeps: Callable[[str, bool], bool]) -> tuple[list[bytes], set[bytes]]:
    """Names that are kept, in order, and which of them are folders."""
    names, folders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a symbolic link to itself
                is_folder = False
            if keeps(_shown(entry.name), is_folder):
                names.append(entry.name)
                if is_folder:
                    folders.add(entry.name)
    names.sort()
    return names, folders


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _footer(file: IO[bytes], size: int) -> int:
    """Bytes of a Parquet file's footer: its length stands before the last four (its magic)."""
    file.seek(max(size - 8, 0))
    return min(int.from_bytes(file.read(4), "little") + 8, size, _FOOTER_MOST)
