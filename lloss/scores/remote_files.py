"""The files of a scores folder in an object store, through fsspec.

An object is written aside, on this machine, and sent in one request (or one multipart upload): the
store shows it whole or not at all, so that no copy and no deletion in the store is needed.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow.dataset as ds

from lloss.errors import LlossError, PoolError, ScoresError
from lloss.files import write_error
from lloss.pools.remote_storage import remote_path, store_reason
from lloss.scores.folder_files import FolderFiles, copy_out

_WHOLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Stores in which no reader sees half an object."""


class RemoteFiles(FolderFiles):
    """A folder behind a URL."""

    failures = (Exception,)  # every store has its own

    def __init__(self, url: str) -> None:
        try:
            folder = remote_path(url.rstrip("/"))
        except PoolError as error:
            raise ScoresError(str(error)) from error
        self.fs, self.path, self.uri = folder.fs, folder.path.rstrip("/"), folder.uri
        self.key = str(self.fs.unstrip_protocol(posixpath.normpath(self.path.lstrip("/"))))

    def reason(self, error: Exception) -> str:
        return store_reason(error)

    def _object(self, name: str) -> str:
        return f"{self.path}/{name}"

    def names(self) -> list[str]:
        with self.errors():
            try:
                listed = self.fs.ls(self.path, detail=True)
            except FileNotFoundError:
                return []
        here = self.path.strip("/")
        found = {entry["name"].strip("/"): entry for entry in listed}
        own = found.pop(here, None)  # the empty object that stands for a folder
        if own is not None and own["size"]:
            raise ScoresError(f"{self.uri}: is an object; scores are a folder of several")
        return [path.rpartition("/")[2] for path in found]

    def read(self, name: str) -> bytes | None:
        with self.errors(name):
            try:
                return bytes(self.fs.cat_file(self._object(name)))
            except FileNotFoundError:
                return None

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        with self.fs.open(self._object(name), "rb") as file:
            yield file

    @contextmanager
    def writing(self, name: str, new: bool = False) -> Iterator[Path]:
        self._check_whole()
        with tempfile.TemporaryDirectory(prefix="lloss-") as folder:
            aside = Path(folder, name)
            try:
                yield aside
            except OSError as error:
                raise write_error(error, aside) from error
            with self._sending(name):
                if new:
                    self._create(name, aside.read_bytes())
                else:
                    self.fs.put_file(str(aside), self._object(name))

    def _create(self, name: str, content: bytes) -> None:
        try:
            self.fs.pipe_file(self._object(name), content, mode="create")
        except FileExistsError as error:
            raise ScoresError(
                f"{self.uri}: another lloss score began here at the same time; "
                "if that is not meant, choose another -o; else run the same command again"
            ) from error
        except (NotImplementedError, TypeError):  # not every store can exclude others
            self.fs.pipe_file(self._object(name), content)

    @contextmanager
    def _sending(self, name: str) -> Iterator[None]:
        try:
            yield
        except LlossError:
            raise
        except Exception as error:
            reason = self.reason(error)
            raise ScoresError(f"{self.where(name)}: cannot be written: {reason}") from error

    def _check_whole(self) -> None:
        protocol = self.fs.protocol
        kinds = (protocol,) if isinstance(protocol, str) else tuple(protocol)
        if not set(kinds) & set(_WHOLE):
            raise ScoresError(
                f"{self.uri}: scores are written to this machine or to {', '.join(_WHOLE[:-1])}: "
                "other stores can show half a file"
            )

    def scanner(self, names: Sequence[str]) -> tuple[ds.Dataset, ds.ParquetFragmentScanOptions]:
        paths = [self._object(name) for name in names]
        dataset = ds.dataset(paths, format="parquet", filesystem=self.fs)
        return dataset, ds.ParquetFragmentScanOptions(page_checksum_verification=True)

    def modified(self, names: Sequence[str]) -> int:
        if not names:
            return 0
        with self.errors(names[-1]):  # one request, not one for each
            last = self.fs.modified(self._object(names[-1]))
            # S3 rounds down to whole seconds: the part may be as young as the second's end.
            return int((last.timestamp() + (last.microsecond == 0)) * 1e9)

    def take(self, source: FolderFiles, name: str) -> None:
        if isinstance(source, RemoteFiles) and source.fs is self.fs:
            self._check_whole()
            with self._sending(name):
                self.fs.cp_file(source._object(name), self._object(name))
            return
        with self.writing(name) as aside:
            copy_out(source, name, aside)

    def clean(self) -> None:
        pass  # nothing is aside in the store
