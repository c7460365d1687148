"""WebDataset shards: tar files whose members come in groups of one key."""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar

from lloss.errors import ImageError, PoolError
from lloss.pools.base import Item, Pool, check_encoded
from lloss.pools.folder import SUFFIXES
from lloss.pools.places import Place, RandomFile
from lloss.pools.prints import file_prints

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

T = TypeVar("T")
_Read: TypeAlias = Callable[[], bytes]

_REMEMBERED = 1_000_000
"""Keys of one shard that are held to find doubled ones; beyond, whoever writes them down does."""

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.S)
"""A member's key, and after the first dot of its last part what it is of that key."""


class ShardPool(Pool):
    """The images in tar files of the WebDataset kind; the id is the key.

    The key is a member's path up to the first dot of its last part; members of one key stand one
    after another. Names are only names: nothing is extracted. Folders, links and devices are
    passed over.

    A plain tar of this machine is walked by its headers, and its images are read later by any
    thread. A remote or a compressed one is read from front to back, and its items carry the bytes.

    Args:
        shards: the files, in the order of the pool.
        uri: what to call the pool.
        image: which member is the image (``jpg``, ``left.png``); by default the one with an
            image's suffix.
    """

    def __init__(self, shards: Sequence[Place], uri: str, image: str = "") -> None:
        self.shards = shards
        self.uri = uri
        self.image = image.lower().removeprefix(".")
        self.remote = any(shard.remote for shard in shards)
        self.streamed = any(_is_streamed(shard) for shard in shards)
        self.counted = not self.streamed

    def __iter__(self) -> Iterator[Item]:
        for shard in self.shards:
            yield from self._items(shard)

    def fingerprint(self) -> str:
        """By the shards' names, sizes and a little of their content."""
        return file_prints(self.shards)

    def _items(self, shard: Place) -> Iterator[Item]:
        seen: set[int] = set()
        members = _streamed(shard) if _is_streamed(shard) else _walked(shard)
        for key, group in itertools.groupby(members, lambda member: member.key):
            image = self._image(shard, key, group)
            if image is None:
                continue
            if hash(key) in seen:
                raise PoolError(f"{shard}: the key {key!r} comes again after others; keys are ids")
            if len(seen) < _REMEMBERED:
                seen.add(hash(key))
            yield Item(key, image)

    def _image(self, shard: Place, key: str, group: Iterator[_Member]) -> _Read | None:
        """How to read the image of a key; None where it has none."""
        found, read = "", None
        for member in group:
            if not self._is_image(member.extension):
                continue
            if read is not None:
                raise PoolError(
                    f"{shard}: the key {key!r} has two images, .{found} and .{member.extension}; "
                    f"choose with ?image={found}"
                )
            found, read = member.extension, member.take()
        return read

    def _is_image(self, extension: str) -> bool:
        if self.image:
            return extension.lower() == self.image
        return "." + extension.lower().rpartition(".")[2] in SUFFIXES


@dataclass(frozen=True)
class _Member:
    """A file in a tar; ``take`` is to be called before the next one is asked for."""

    key: str
    extension: str
    take: Callable[[], _Read]


class _Header(tarfile.TarInfo):
    """A header that tells a damaged archive from one that ends.

    The library takes a bad header past the first one, and a file that ends without the block of
    zeros, as the end of the archive: images would be missing and nobody would know.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """See the library."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            what = "it ends too early" if len(buf) < tarfile.BLOCKSIZE else str(error)
            raise tarfile.ReadError(what) from error


def _is_streamed(shard: Place) -> bool:
    return shard.remote or shard.suffix != ".tar"


def _walked(shard: Place) -> Iterator[_Member]:
    """Members of a tar on this machine: only the headers are read."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_readable(shard))
        file = stack.enter_context(shard.open())
        tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:", **_TEXT))
        images, size = shard.open_random(), shard.size()
        for info in _headers(tar):
            if info.offset_data + info.size > size:
                raise tarfile.ReadError(f"it ends in the middle of {info.name!r}")
            read = functools.partial(_read, shard, images, info.offset_data, info.size)
            yield from _member(info, functools.partial(_same, read))


def _streamed(shard: Place) -> Iterator[_Member]:
    """Members of a remote or compressed tar: it is read once, from front to back."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_readable(shard))
        file: Any = stack.enter_context(shard.open())
        if shard.suffix != ".tar":
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        tar = stack.enter_context(tarfile.open(fileobj=file, mode="r|", bufsize=1 << 20, **_TEXT))
        for info in _headers(tar):
            yield from _member(info, functools.partial(_carried, tar, info))


_TEXT: Any = {"tarinfo": _Header, "encoding": "utf-8", "errors": "surrogateescape"}


@contextlib.contextmanager
def _readable(shard: Place) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise PoolError(f"{shard}: damaged or no tar file: {error}") from error


def _headers(tar: Any) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        tar.members.clear()  # the library would keep all that it has seen
        if info.isreg() and not info.issparse():
            yield info


def _member(info: tarfile.TarInfo, take: Callable[[], _Read]) -> Iterator[_Member]:
    name = os.fsencode(info.name).decode("utf-8", "backslashreplace")
    parts = _NAME.fullmatch(name)
    if parts is not None:
        yield _Member(parts[1], parts[2], take)


def _read(shard: Place, file: RandomFile, offset: int, size: int) -> bytes:
    check_encoded(size)
    image = file.read(offset, size)
    if len(image) < size:
        raise PoolError(f"{shard}: the file became shorter while it was read")
    return image


def _carried(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Read:
    try:
        check_encoded(info.size)
    except ImageError as error:  # of this item alone, and when it is read
        return functools.partial(_refuse, error)
    member = tar.extractfile(info)
    image = member.read() if member else b""
    if len(image) < info.size:
        raise tarfile.ReadError(f"it ends in the middle of {info.name!r}")
    return functools.partial(_same, image)


def _refuse(error: ImageError) -> bytes:
    raise error


def _same(value: T) -> T:
    return value
