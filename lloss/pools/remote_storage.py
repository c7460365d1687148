"""Files and folders behind fsspec: S3, other object stores, and whatever else it knows."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any, Literal

from lloss.errors import ImageError, LlossError, MissingExtraError, PoolError
from lloss.pools import image_files
from lloss.pools.confinement import OUTSIDE, Confinement
from lloss.pools.pool import Item
from lloss.pools.storage import SHRANK, RandomFile, StoragePath
from lloss.pools.uri import without_secrets

_TAGS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified"),
    *("last_modified", "updated", "modified", "mtime", "created"),
)
"""The names that stores give a content's tag or time, the most reliable first."""


def remote_path(uri: str, within: Confinement | None = None) -> RemotePath:
    """The path of a URL; nothing is asked of the server yet.

    MissingExtraError where fsspec, or what it needs for such URLs, is not installed.
    """
    what = f"reading {without_secrets(uri)}"
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(what, "remote", "fsspec") from error
    try:
        # A cache of listings would hold every name of the pool, and hide what changed.
        files, path = url_to_fs(uri, use_listings_cache=False)
    except ImportError as error:
        if uri.startswith(("s3:", "s3a:")):
            raise MissingExtraError(what, "remote", "s3fs") from error
        raise PoolError(f"{without_secrets(uri)}: {error}") from error  # it names the package
    except Exception as error:  # every kind of store has its own
        raise PoolError(f"{without_secrets(uri)}: cannot be read: {store_reason(error)}") from error
    return RemotePath(files, path, uri, within)


class RemotePath(StoragePath):
    """A path of an fsspec file system."""

    remote = True

    def __init__(self, files: Any, path: str, uri: str, within: Confinement | None = None) -> None:
        self.within = within
        self.fs = files
        self.path = path
        self._uri = uri
        self.uri = without_secrets(uri)

    @property
    def parts(self) -> tuple[str, ...]:
        """The path split up, without a server's query, which may be a signature."""
        return tuple(self.path.partition("?")[0].rstrip("/").split("/"))

    @property
    def parent(self) -> RemotePath:
        folder = self.path.rstrip("/").rpartition("/")[0]
        uri = self._uri.partition("?")[0].rpartition("/")[0]
        return RemotePath(self.fs, folder, uri, self.within)

    def at(self, path: str) -> RemotePath:
        """A path below this folder; ``..`` goes up, and a leading ``/`` means nothing."""
        if not path:
            return self
        parts = self.path.rstrip("/").split("/")
        for part in path.strip("/").split("/"):
            parts = parts[:-1] if part == ".." else parts if part == "." else [*parts, part]
        uri = f"{self._uri.rstrip('/')}/{path}"
        return RemotePath(self.fs, "/".join(parts), uri, self.within)

    @property
    def outside(self) -> bool:
        """Whether it is outside of ``within``."""
        return self.within is not None and not self.within.holds_object(self.fs, self.path)

    def kind(self) -> Literal["file", "folder", ""]:
        with store_errors(self):
            try:
                kind = self.fs.info(self.path)["type"]
            except FileNotFoundError:
                return ""
        return "folder" if kind == "directory" else "file"

    def entries(
        self, keeps: Callable[[str, bool], bool]
    ) -> Iterator[tuple[str, str, RemotePath | None]]:
        for name, is_folder in [entry for entry in self._listed() if keeps(*entry)]:
            yield name, self._file(name), self.at(name) if is_folder else None

    def _file(self, path: str) -> str:
        return str(self.fs.unstrip_protocol(self.at(path).path))

    def _listed(self) -> list[tuple[str, bool]]:
        with store_errors(self):
            listed = self.fs.ls(self.path, detail=True)
        here = self.path.strip("/")
        names = {
            (entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory")
            for entry in listed
            if entry["name"].strip("/") != here  # the empty object that stands for a folder
        }
        return sorted(names, key=lambda entry: entry[0].encode("utf-8", "surrogatepass"))

    def existing(self, paths: Collection[str]) -> set[str]:
        found = set()
        for folder in {path.rpartition("/")[0] for path in paths}:
            path = self.at(folder)
            start = f"{folder}/" if folder else ""
            if path.kind() == "folder":
                found |= {start + name for name, is_folder in path._listed() if not is_folder}
        return found & set(paths)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        with store_errors(self), self.fs.open(self.path, "rb") as file:
            yield file

    def open_random(self) -> RandomFile:
        return self

    def read_into(self, offset: int, out: memoryview) -> None:
        """Implement :class:`RandomFile` by one request for the range."""
        with store_errors(self):
            data = self.fs.cat_file(self.path, start=offset, end=offset + len(out))
        if len(data) < len(out):
            raise PoolError(f"{self}: {SHRANK}")
        out[:] = data

    def fingerprint(self) -> str:
        with store_errors(self):
            info = self.fs.info(self.path)
        tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
        return f"{info.get('size')} {tag}"

    def image(self, path: str, id: str = "", file: bytes | str | None = None) -> Item:
        read = functools.partial(self._read_image, path)
        return Item(id or path, read, file=file or self._file(path))

    def _read_image(self, path: str) -> bytes:
        # A missing object and "access denied" are of this image alone. A store that fails, or that
        # refuses us altogether, would skip every image from here on.
        image = self.at(path)
        if image.outside:
            raise ImageError(OUTSIDE)
        with store_errors(image):
            try:
                return image._bounded()
            except (FileNotFoundError, IsADirectoryError) as error:
                raise ImageError("cannot be read: no such object") from error
            except PermissionError as error:
                if "denied" in str(error).lower():
                    raise ImageError("cannot be read: access denied") from error
                raise

    def _bounded(self) -> bytes:
        """The object's bytes; no more are requested than an image may have."""
        most = image_files.MAX_ENCODED
        try:
            data = bytes(self.fs.cat_file(self.path, start=0, end=most + 1))
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            raise
        except Exception:  # an empty object has no first byte: each store says so in its own way
            if self.fs.info(self.path).get("size") != 0:
                raise
            return b""
        if len(data) > most:
            whole = int(self.fs.info(self.path).get("size") or 0)
            image_files.check_encoded(max(len(data), whole))
        return data


@contextlib.contextmanager
def store_errors(path: RemotePath) -> Iterator[None]:
    """Turn what a store or its client raises into one line; refuse paths outside of ``within``."""
    if path.outside:
        raise PoolError(f"{path}: {OUTSIDE}")
    try:
        yield
    except LlossError:
        raise
    except FileNotFoundError as error:
        raise PoolError(f"{path}: no such bucket, folder or object") from error
    except Exception as error:  # every kind of store has its own
        raise PoolError(f"{path}: cannot be read: {store_reason(error)}") from error


def store_reason(error: Exception) -> str:
    """What a store or its client says, in one line, with the usual remedy."""
    name = type(error).__name__
    text = without_secrets(" ".join(str(error).split())) or name
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return f"{text}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return text
