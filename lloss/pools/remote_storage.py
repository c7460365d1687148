"""Files and folders behind fsspec: S3, other object stores, and whatever else it knows."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Literal, cast

from lloss.errors import ImageError, LlossError, MissingExtraError, PoolError
from lloss.pools import pool as base
from lloss.pools.confinement import OUTSIDE, Confinement
from lloss.pools.file_walk import PassedOver, Tree, has_image_suffix, is_visible, walk
from lloss.pools.folder_pool import checked_images, is_plain_relative
from lloss.pools.pool import Item, Pool, check_encoded
from lloss.pools.storage import RandomFile, StoragePath
from lloss.pools.uri import without_secrets

_TAGS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified"),
    *("last_modified", "updated", "modified", "mtime", "created"),
)
"""What stores call a content's tag or time, the ones of most weight first."""


def remote_place(uri: str, within: Confinement | None = None) -> StoragePath:
    """What a URL leads to; nothing is asked of the server yet.

    Raises:
        MissingExtraError: fsspec, or what it needs for such URLs, is not installed.
        PoolError: fsspec knows no such URLs.
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
        raise PoolError(f"{without_secrets(uri)}: {_reason(error)}") from error
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
    def name(self) -> str:
        """The path's last part, without a server's query."""
        return self.path.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def parts(self) -> tuple[str, ...]:
        """See :attr:`StoragePath.parts`; without a server's query, which may be a signature."""
        return tuple(self.path.partition("?")[0].rstrip("/").split("/"))

    @property
    def parent(self) -> StoragePath:
        """The path's folder."""
        folder = self.path.rstrip("/").rpartition("/")[0]
        uri = self._uri.partition("?")[0].rpartition("/")[0]
        return RemotePath(self.fs, folder, uri, self.within)

    def at(self, path: str) -> RemotePath:
        """A path below this folder; ``..`` goes up, and a leading ``/`` means nothing."""
        parts = self.path.rstrip("/").split("/")
        for part in path.strip("/").split("/"):
            parts = parts[:-1] if part == ".." else parts if part == "." else [*parts, part]
        uri = f"{self._uri.rstrip('/')}/{path}"
        return RemotePath(self.fs, "/".join(parts), uri, self.within)

    @property
    def outside(self) -> bool:
        """Whether it is not where it must be."""
        return self.within is not None and not self.within.holds_object(self.fs, self.path)

    def kind(self) -> Literal["file", "folder", ""]:
        """Asks the server."""
        with told(self):
            try:
                kind = self.fs.info(self.path)["type"]
            except FileNotFoundError:
                return ""
        return "folder" if kind == "directory" else "file"

    def entries(self) -> list[tuple[str, bool]]:
        """Name of each file and folder in this one and whether it is a folder, in order."""
        with told(self):
            listed = self.fs.ls(self.path, detail=True)
        here = self.path.strip("/")
        names = {
            (entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory")
            for entry in listed
            if entry["name"].strip("/") != here  # the empty object that stands for a folder
        }
        return sorted(names, key=lambda entry: entry[0].encode("utf-8", "surrogatepass"))

    def file_of(self, path: str) -> str:
        """See :meth:`StoragePath.file_of`."""
        return f"{self._protocol}://{self.at(path).path}"

    @functools.cached_property
    def _protocol(self) -> str:
        kinds = self.fs.protocol
        return kinds if isinstance(kinds, str) else kinds[0]

    def files(self) -> list[str]:
        """See :meth:`StoragePath.files`."""
        return [name for name, is_folder in self.entries() if not is_folder]

    def open(self) -> IO[bytes]:
        """See :meth:`StoragePath.open`."""
        with told(self):
            return cast(IO[bytes], _ToldFile(self, self.fs.open(self.path, "rb")))

    def open_random(self) -> RandomFile:
        """See :meth:`StoragePath.open_random`."""
        return RemoteFile(self)

    def size(self) -> int:
        """The file's length in bytes."""
        with told(self):
            return int(self.fs.info(self.path)["size"])

    def trace(self) -> str:
        """The size and, where the store has one, a tag or a time."""
        with told(self):
            info = self.fs.info(self.path)
        tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
        return f"{info.get('size')} {tag}"

    def _bounded(self) -> bytes:
        """The object's bytes, of which no more are asked for than an image may have."""
        most = base.MAX_ENCODED
        try:
            data = bytes(self.fs.cat_file(self.path, start=0, end=most + 1))
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            raise
        except Exception:  # an empty object has no first byte: each store says so in its own way
            if self.fs.info(self.path).get("size") != 0:
                raise
            return b""
        if len(data) > most:
            check_encoded(max(len(data), int(self.fs.info(self.path).get("size") or 0)))
        return data

    def read_image(self, path: str) -> bytes:
        """See :meth:`StoragePath.read_image`.

        Raises:
            ImageError: this one object is not there, or not ours to read.
            PoolError: the store cannot be reached, or refuses us altogether: to go on would
                skip every image from here on.
        """
        place = self.at(path)
        if place.outside:
            raise ImageError(OUTSIDE)
        with told(place):
            try:
                return place._bounded()
            except (FileNotFoundError, IsADirectoryError) as error:
                raise ImageError("cannot be read: no such object") from error
            except PermissionError as error:
                if "denied" in str(error).lower():
                    raise ImageError("cannot be read: access denied") from error
                raise


class RemoteFile(RandomFile):
    """A remote file read by ranges, one request each."""

    def __init__(self, place: RemotePath) -> None:
        self.place = place

    def read_into(self, offset: int, out: memoryview) -> int:
        """See :meth:`RandomFile.read_into`."""
        if not len(out):
            return 0
        with told(self.place):
            found = self.place.fs.cat_file(self.place.path, start=offset, end=offset + len(out))
        out[: len(found)] = found
        return len(found)


class RemoteFolderPool(Pool):
    """Every image file below a remote folder; ids and order are those of a local one.

    Folders are listed one after another, so that only one folder's names are held at a time.
    """

    unique = True
    remote = True
    counted = False

    def __init__(self, root: RemotePath, uri: str) -> None:
        self.root = root
        self.uri = uri
        self._passed: PassedOver | None = None

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, self.ids())

    def ids(self) -> Iterator[str]:
        """Paths below the folder."""
        passed = PassedOver()
        found = walk(RemoteTree(self.root), has_image_suffix, passed)
        yield from (id for id, _ in checked_images(self.uri, found, passed))
        self._passed = passed

    def passed_over(self) -> PassedOver | None:
        """See :meth:`Pool.passed_over`."""
        return self._passed

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here only the folders that ids name are listed."""
        wanted = list(ids)
        names: dict[str, set[str]] = {}
        unknown = [id for id in wanted if not self._holds(id, names)]
        if unknown:
            self._refuse(unknown[0], len(unknown))
        return [self._item(id) for id in wanted]

    def _holds(self, id: str, names: dict[str, set[str]]) -> bool:
        folder, _, name = id.rpartition("/")
        if not (is_plain_relative(id) and is_visible(id) and has_image_suffix(name)):
            return False
        if folder not in names:
            place = self._folder(folder)
            names[folder] = set(place.files()) if place.kind() == "folder" else set()
        return name in names[folder]

    def _folder(self, prefix: str) -> RemotePath:
        return self.root.at(prefix) if prefix else self.root

    def _item(self, id: str) -> Item:
        read = functools.partial(self.root.read_image, id)
        return Item(id, read, file=self.root.file_of(id))


class RemoteTree(Tree):
    """A folder of a store."""

    def __init__(self, place: RemotePath) -> None:
        self.place = place

    def entries(
        self, keeps: Callable[[str, bool], bool]
    ) -> Iterator[tuple[str, RemotePath, RemoteTree | None]]:
        """See :class:`Tree`."""
        for name, is_folder in [entry for entry in self.place.entries() if keeps(*entry)]:
            inner = self.place.at(name)
            yield name, inner, RemoteTree(inner) if is_folder else None


class _ToldFile:
    """An open remote file whose errors are ours."""

    def __init__(self, place: RemotePath, file: Any) -> None:
        self._place, self._file = place, file

    def read(self, size: int = -1) -> bytes:
        with told(self._place):
            return bytes(self._file.read(size))

    def readinto(self, out: Any) -> int:
        view = memoryview(out).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    read1 = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _ToldFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)


@contextlib.contextmanager
def told(place: RemotePath) -> Iterator[None]:
    """Whatever a store or its client raises, as one line; nothing is asked outside of bounds."""
    if place.outside:
        raise PoolError(f"{place}: {OUTSIDE}")
    try:
        yield
    except LlossError:
        raise
    except FileNotFoundError as error:
        raise PoolError(f"{place}: no such bucket, folder or object") from error
    except Exception as error:  # every kind of store has its own
        raise PoolError(f"{place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The error in one line, with the remedy where there is a usual one."""
    name = type(error).__name__
    text = without_secrets(" ".join(str(error).split())) or name
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return f"{text}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return f"cannot be read: {text}"
