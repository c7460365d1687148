"""The files of a scores folder, on this machine; behind a URL, see ``remote_files``."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, ClassVar

import pyarrow as pa
import pyarrow.dataset as ds

from lloss.errors import LlossError, ScoresError
from lloss.files import atomic_write, locked, sweep

_FILE_URL = re.compile(r"(?:file|local)://")
_BROKEN_URL = re.compile(r"(?:s3a?|gcs|gs|az|abfss?|memory):/(?!/)")
"""What :class:`~pathlib.Path` makes of a URL."""

_BLOCK = 1 << 20
"""Bytes that a copy holds."""


class FolderFiles(ABC):
    """The files of one folder, by their names; each of them appears whole or not at all.

    Attributes:
        uri: of the folder, for messages; without credentials.
        key: equal for the same folder by another path.
        failures: what reading a file raises, by itself or through Arrow.
    """

    uri: str
    key: str
    failures: ClassVar[tuple[type[Exception], ...]]

    def where(self, name: str) -> str:
        """A file's place, for messages."""
        return f"{self.uri.rstrip('/')}/{name}"

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all that is in the folder; none where it does not exist."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where it does not exist, ScoresError where it cannot be read."""

    @abstractmethod
    def opened(self, name: str) -> AbstractContextManager[str | IO[bytes]]:
        """What Arrow reads the file from."""

    @abstractmethod
    def writing(self, name: str, new: bool = False) -> AbstractContextManager[Path]:
        """Yield a path of this machine to write to; what it holds then appears under the name.

        With ``new``, raise ScoresError where another process was first, if the store notices.
        """

    @abstractmethod
    def scanner(self, names: Sequence[str]) -> tuple[ds.Dataset, ds.ParquetFragmentScanOptions]:
        """Parquet files as one dataset, and how to scan it."""

    @abstractmethod
    def modified(self, names: Sequence[str]) -> int:
        """When the newest of these files, which ascend, was written, in nanoseconds."""

    @abstractmethod
    def take(self, source: FolderFiles, name: str) -> None:
        """Copy a file of another folder, without moving its bytes where that is possible."""

    @abstractmethod
    def clean(self) -> None:
        """Remove what killed processes were writing aside."""

    def locked(self, busy: LlossError) -> AbstractContextManager[None]:
        """Lock the folder for this process, where that is possible; else raise ``busy``."""
        return nullcontext()

    def reason(self, error: Exception) -> str:
        """The failure in one line."""
        return str(error)

    @contextmanager
    def errors(self, name: str = "") -> Iterator[None]:
        """Turn a failure to read the file, or the folder, into a :class:`ScoresError`."""
        try:
            yield
        except LlossError:
            raise
        except self.failures as error:
            where = self.where(name) if name else self.uri
            raise ScoresError(f"{where}: cannot be read: {self.reason(error)}") from error


class LocalFiles(FolderFiles):
    """A folder of this machine."""

    failures = (pa.ArrowException, OSError, ValueError, KeyError)  # also bad UTF-8

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = str(path)

    @property
    def key(self) -> str:  # type: ignore[override]
        return str(self.path.resolve())

    def where(self, name: str) -> str:
        return str(self.path / name)

    def names(self) -> list[str]:
        return [path.name for path in self.path.iterdir()] if self.path.is_dir() else []

    def read(self, name: str) -> bytes | None:
        path = self.path / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise ScoresError(
                f"{self.path}: is not a folder; scores are a folder that lloss score makes"
            ) from error
        except OSError as error:
            raise ScoresError(f"{path}: cannot be read: {error.strerror or error}") from error

    def opened(self, name: str) -> AbstractContextManager[str]:
        return nullcontext(self.where(name))

    def writing(self, name: str, new: bool = False) -> AbstractContextManager[Path]:
        return atomic_write(self.path / name)  # the lock keeps others out

    def scanner(self, names: Sequence[str]) -> tuple[ds.Dataset, ds.ParquetFragmentScanOptions]:
        dataset = ds.dataset([self.where(name) for name in names], format="parquet")
        # Buffering ahead is for stores; of files it only copies.
        options = {"pre_buffer": False, "page_checksum_verification": True}
        return dataset, ds.ParquetFragmentScanOptions(**options)

    def modified(self, names: Sequence[str]) -> int:
        return max((self.path.joinpath(name).stat().st_mtime_ns for name in names), default=0)

    def take(self, source: FolderFiles, name: str) -> None:
        with self.writing(name) as aside:
            if isinstance(source, LocalFiles):
                with suppress(OSError):  # another file system, or one without links
                    os.link(source.path / name, aside)
                    return
            copy_out(source, name, aside)

    def clean(self) -> None:
        sweep(self.path)

    def locked(self, busy: LlossError) -> AbstractContextManager[None]:
        return locked(self.path, busy)


def copy_out(source: FolderFiles, name: str, path: Path) -> None:
    """Copy a file of any folder to a path of this machine.

    ScoresError where it cannot be read, OSError where it cannot be written.
    """
    with path.open("wb") as file:
        for block in _blocks(source, name):
            file.write(block)


def _blocks(source: FolderFiles, name: str) -> Iterator[bytes]:
    with (
        source.errors(name),
        source.opened(name) as opened,
        Path(opened).open("rb") if isinstance(opened, str) else nullcontext(opened) as file,
    ):
        while block := file.read(_BLOCK):
            yield block


def folder_files(path: str | Path) -> FolderFiles:
    """The files of a folder of this machine or, by a URL, behind fsspec (``s3://...``).

    MissingExtraError where the packages for such a URL are not installed.
    """
    if isinstance(path, Path) and _BROKEN_URL.match(str(path)):
        raise ScoresError(f"{path}: a Path cannot hold a URL; give the URL as text")
    text = _FILE_URL.sub("", str(path), count=1)
    if "://" in text:
        from lloss.scores.remote_files import RemoteFiles  # fsspec is an extra

        return RemoteFiles(text)
    return LocalFiles(Path(text))
