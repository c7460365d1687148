"""Where a file or a folder lies: on this machine, or behind fsspec (see ``remote``).

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from lloss.errors import PoolError
from lloss.pools.confinement import OUTSIDE, Confinement
from lloss.pools.pool import read_file
from lloss.pools.read_failures import Root, failure
from lloss.pools.uri import is_url

_SAMPLE = 4 << 10
"""Bytes at the begin and in the middle of a file that tell it from another."""
_SAMPLE_END = 16 << 10
"""Bytes at its end: tar fills its last 10 KiB up with zeros."""
_FOOTER_MOST = 64 << 20

_TRIED = 8
"""Images looked for before the file's own folder is taken for theirs."""


class RandomFile(ABC):
    """A file that any thread reads anywhere: there is no position to share."""

    @abstractmethod
    def read_into(self, offset: int, out: memoryview) -> int:
        """Fill ``out`` (bytes) from there on; returns how much there was."""

    def read(self, offset: int, size: int) -> bytes:
        """That many bytes, or fewer at the end of the file."""
        out = bytearray(size)
        return bytes(memoryview(out)[: self.read_into(offset, memoryview(out))])


class StoragePath(ABC):
    """A file or a folder.

    Attributes:
        uri: for messages; without credentials.
        remote: whether it takes a network to read it.
        within: what it must lie in to be opened or listed; None for anywhere. Whatever is reached
            from here must too.
    """

    uri: str
    remote: bool
    within: Confinement | None = None

    def __str__(self) -> str:
        return self.uri

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The whole path taken apart, the name last."""

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on, in lower case."""
        return os.path.splitext(self.name)[1].lower()  # noqa: PTH122  the name is no path

    @property
    @abstractmethod
    def parent(self) -> StoragePath:
        """The folder it lies in."""

    @abstractmethod
    def at(self, path: str) -> StoragePath:
        """What lies at this path, relative to here when it is a relative one."""

    @abstractmethod
    def kind(self) -> Literal["file", "folder", ""]:
        """What is there; empty where nothing is."""

    @abstractmethod
    def files(self) -> list[str]:
        """Names of the files (not folders) that lie in this folder, in the order of their bytes."""

    @abstractmethod
    def file_of(self, path: str) -> bytes | str:
        """The file at this path, taken as :meth:`at` does, as ``Item.file`` names it."""

    @abstractmethod
    def open(self) -> IO[bytes]:
        """Open the file to read it; it can seek.

        Raises:
            PoolError: it cannot be read.
        """

    @abstractmethod
    def open_random(self) -> RandomFile:
        """Open the file to read it in many threads.

        Raises:
            PoolError: it cannot be read.
        """

    @abstractmethod
    def size(self) -> int:
        """The file's length in bytes."""

    @abstractmethod
    def trace(self) -> str:
        """What changes when another file takes this one's place; the same for a copy elsewhere.

        Only a little of the file is looked at, so that it is cheap for files of any size.

        Raises:
            PoolError: it is gone or cannot be read.
        """

    @abstractmethod
    def read_image(self, path: str) -> bytes:
        """The bytes of the file at this path, taken as :meth:`at` does, of this folder's pool.

        Raises:
            ImageError: this one file cannot be read.
            PoolError: no other could be read either.
        """


class LocalPath(StoragePath):
    """A path of this machine."""

    remote = False

    def __init__(self, path: Path, within: Confinement | None = None) -> None:
        self.path = path
        self.uri = str(path)
        self.within = within

    @property
    def name(self) -> str:
        """The path's last part."""
        return self.path.name

    @property
    def parts(self) -> tuple[str, ...]:
        """See :attr:`StoragePath.parts`."""
        return self.path.absolute().parts

    @property
    def parent(self) -> StoragePath:
        """The path's folder."""
        return LocalPath(self.path.parent, self.within)

    def at(self, path: str) -> StoragePath:
        """A path below this folder, or an absolute one."""
        return LocalPath(self.path / path, self.within)

    def kind(self) -> Literal["file", "folder", ""]:
        """What the path leads to; links are followed."""
        if os.path.isdir(self.path):  # noqa: PTH112  Path.is_dir() raises on a long name
            return "folder"
        return "file" if os.path.exists(self.path) else ""  # noqa: PTH110

    def files(self) -> list[str]:
        """See :meth:`StoragePath.files`."""
        if self.within is not None and not self.within.holds_path(self.path):
            raise PoolError(f"{self.path}: {OUTSIDE}")
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        except OSError as error:
            raise PoolError(f"{self.path}: cannot be listed: {error.strerror}") from error
        return sorted(names, key=os.fsencode)

    def file_of(self, path: str) -> bytes:
        """See :meth:`StoragePath.file_of`."""
        return os.fsencode(os.path.join(self.path, path))  # noqa: PTH118  for each image

    def open(self) -> IO[bytes]:
        """See :meth:`StoragePath.open`."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise PoolError(f"{self.path}: is no regular file")
            file = self.path.open("rb")
        except (OSError, ValueError) as error:
            raise PoolError(f"{self.path}: cannot be read: {_reason(error)}") from error
        if self.within is not None and not self.within.holds_file(file.fileno(), self.path):
            file.close()
            raise PoolError(f"{self.path}: {OUTSIDE}")
        return file

    def path_of(self, file: IO[bytes]) -> str:
        """A path that leads to an open file of this place, to open it once more.

        Where places are confined it leads to that very file, not to what took its place meanwhile.
        """
        if self.within is None:
            return str(self.path)
        again = f"/proc/self/fd/{file.fileno()}"
        return again if os.path.exists(again) else str(self.path)  # noqa: PTH110

    def open_random(self) -> RandomFile:
        """See :meth:`StoragePath.open_random`."""
        return LocalFile(self.path, self.within)

    def size(self) -> int:
        """The file's length in bytes."""
        return self.path.stat().st_size

    def trace(self) -> str:
        """See :meth:`StoragePath.trace`; the size, and the bytes of begin, middle and end.

        Of a Parquet file the end is the whole footer: it tells size and place of every column.
        """
        with _told(self.path), self.open() as file:
            size = os.fstat(file.fileno()).st_size
            end = _footer(file, size) if self.suffix == ".parquet" else _SAMPLE_END
            digest = hashlib.sha256(str(size).encode())
            for start, length in ((0, _SAMPLE), (size // 2, _SAMPLE), (max(size - end, 0), end)):
                file.seek(start)
                digest.update(file.read(length))
        return digest.hexdigest()

    @functools.cached_property
    def _root(self) -> Root:
        return Root(self.path, self.within)

    def read_image(self, path: str) -> bytes:
        """See :meth:`StoragePath.read_image`."""
        return read_file(self.path / path, self._root)


class LocalFile(RandomFile):
    """A local file read by position, past Python's buffers and without the interpreter's lock."""

    def __init__(self, path: Path, within: Confinement | None = None) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except (OSError, ValueError) as error:
            raise PoolError(f"{path}: cannot be read: {_reason(error)}") from error
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._file)
        if within is not None and not within.holds_file(self._file, path):
            raise PoolError(f"{path}: {OUTSIDE}")

    def read_into(self, offset: int, out: memoryview) -> int:
        """See :meth:`RandomFile.read_into`."""
        out, done = out.cast("B") if out.format != "B" or out.ndim != 1 else out, 0
        try:
            while done < len(out):
                count = self._read_some(offset + done, out[done:])
                if not count:
                    break
                done += count
        except OSError as error:
            raise failure(error, self.path) from error
        return done

    def _read_some(self, offset: int, out: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file, [out], offset)
        with self._lock:  # Windows has no read by position
            os.lseek(self._file, offset, os.SEEK_SET)
            read = os.read(self._file, len(out))
        out[: len(read)] = read
        return len(read)


def place_of(uri: str, within: Confinement | None = None) -> StoragePath:
    """Where a path or a URL leads; nothing is opened yet.

    Args:
        uri: the path or URL.
        within: see :class:`StoragePath`.

    Raises:
        PoolError: a URL of an unknown kind.
        MissingExtraError: the package that reads such URLs is not installed.
    """
    scheme, mark, rest = uri.partition("://")
    if scheme in ("file", "local") and mark:
        return LocalPath(Path(rest), within)
    if is_url(uri):
        from lloss.pools.remote_storage import remote_place  # fsspec is an extra

        return remote_place(uri, within)
    return LocalPath(Path(uri), within)


def image_folder(listing: StoragePath, names: Sequence[str], asked: str = "") -> StoragePath:
    """The folder of a file's images.

    Args:
        listing: the file.
        names: of the images, as it writes them.
        asked: the folder that the user names, relative to the file's; "" to look for it.

    Returns:
        The first of the file's folder, ``images`` in it and ``images`` beside it that holds one of
        the first images; the file's folder if none does.
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


def _footer(file: IO[bytes], size: int) -> int:
    """Bytes of a Parquet file's footer: its length stands before the last four (its magic)."""
    file.seek(max(size - 8, 0))
    return min(int.from_bytes(file.read(4), "little") + 8, size, _FOOTER_MOST)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PoolError(f"{path}: cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
