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
from typing import Any, NamedTuple, Self, TypeAlias

from lloss.errors import ImageError, PoolError
from lloss.pools.file_walk import SUFFIXES, PassedOver, is_visible
from lloss.pools.fingerprints import files_fingerprint
from lloss.pools.image_files import check_encoded, failing_read
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import RandomFile, StoragePath
from lloss.pools.uri import PoolUri

_Read: TypeAlias = Callable[[], bytes]

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.S)
"""A member's key, and after the first dot of its last part what it is of that key."""


class WebDatasetPool(Pool):
    """The images in tar files of the WebDataset kind; the id is the key.

    The key is a member's path up to the first dot of its last part; members of one key stand one
    after another. Nothing is extracted. Hidden members, links, devices and the members of keys
    without an image are passed over. Concatenated archives are all read.

    A plain tar of this machine is walked by its headers, and its images are read later by any
    thread. A remote or a compressed one is read from front to back, and its items carry the bytes.
    The option ``image`` names the member that is the image (``jpg``, ``left.png``).
    """

    def __init__(self, shards: Sequence[StoragePath], uri: PoolUri) -> None:
        self.shards = shards
        self.uri = str(uri)
        self.image = uri.options.get("image", "").lower().removeprefix(".")
        self.remote = any(shard.remote for shard in shards)
        self.streamed = any(_is_streamed(shard) for shard in shards)
        self._passed: PassedOver | None = None

    def __iter__(self) -> Iterator[Item]:
        passed = PassedOver()
        for shard in self.shards:
            yield from self._items(shard, passed)
        self._passed = passed

    def passed_over(self) -> PassedOver | None:
        if self._passed is None and not self.streamed:
            self.count()
        return self._passed and self._passed + self.beside

    def fingerprint(self) -> str:
        return files_fingerprint(self.shards)

    def _items(self, shard: StoragePath, passed: PassedOver) -> Iterator[Item]:
        members = (_streamed if _is_streamed(shard) else _walked)(shard, passed)
        for key, group in itertools.groupby(members, lambda member: member.key):
            image = self._image(shard, key, group, passed)
            if image is not None:
                yield Item(key, image)

    def _image(
        self, shard: StoragePath, key: str, group: Iterator[_Member], passed: PassedOver
    ) -> _Read | None:
        """How to read the image of a key; None where it has none."""
        found, read, others = "", None, []
        for member in group:
            if not self._is_image(member.extension):
                others.append(f".{member.extension}")
                continue
            if read is not None:
                raise PoolError(
                    f"{shard}: the key {key!r} has two images, .{found} and .{member.extension}; "
                    f"choose with ?image={found}"
                )
            found, read = member.extension, member.take()
        for name in others if read is None else ():  # else they describe the image
            passed.add(f"{key}{name}")
        return read

    def _is_image(self, extension: str) -> bool:
        if self.image:
            return extension.lower() == self.image
        return "." + extension.lower().rpartition(".")[2] in SUFFIXES


class _Member(NamedTuple):
    """A file in a tar; call ``take`` before the next one is asked for."""

    key: str
    extension: str
    take: Callable[[], _Read]


class _Header(tarfile.TarInfo):
    """A header that distinguishes a damaged archive from one that ends.

    The library takes a bad header past the first one, and a file that ends without the block of
    zeros, as the end of the archive: images would be missing without an error.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):  # fewer zeros than a header has are the end of the file
                whole = len(buf) == tarfile.BLOCKSIZE
                return super().frombuf(buf if whole else b"", encoding, errors)
            what = "it ends too early" if len(buf) < tarfile.BLOCKSIZE else str(error)
            raise tarfile.ReadError(what) from error


_READING: Any = {
    "tarinfo": _Header,
    "ignore_zeros": True,  # another archive may come behind the end of one
    "encoding": "utf-8",
    "errors": "surrogateescape",
}


def _is_streamed(shard: StoragePath) -> bool:
    return shard.remote or shard.suffix != ".tar"


def _walked(shard: StoragePath, passed: PassedOver) -> Iterator[_Member]:
    """Members of a tar on this machine: only the headers are read."""
    with shard.open() as file, _tar_errors(shard):
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        images = shard.open_random()
        with tarfile.open(fileobj=file, mode="r:", **_READING) as tar:
            for key, extension, info in _headers(tar, passed):
                if info.offset_data + info.size > size:
                    raise tarfile.ReadError(f"it ends in the middle of {info.name!r}")
                read = functools.partial(_read, images, info.offset_data, info.size)
                yield _Member(key, extension, lambda read=read: read)  # type: ignore[misc]


def _streamed(shard: StoragePath, passed: PassedOver) -> Iterator[_Member]:
    """Members of a remote or compressed tar: it is read once, from front to back."""
    with shard.open() as file, _tar_errors(shard):
        plain: Any = file if shard.suffix == ".tar" else gzip.GzipFile(fileobj=file)
        with tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20, **_READING) as tar:
            for key, extension, info in _headers(tar, passed):
                yield _Member(key, extension, functools.partial(_carried, tar, info))


@contextlib.contextmanager
def _tar_errors(shard: StoragePath) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise PoolError(f"{shard}: damaged, or not a tar file: {error}") from error


def _headers(tar: Any, passed: PassedOver) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, extension and header of all plain visible files up to the end of the file."""
    end = 0  # of the last member
    while (info := tar.next()) is not None:
        tar.members.clear()  # the library would keep all that it has seen
        end = tar.offset
        if not info.isreg() or info.issparse():
            if not info.isdir():
                passed.add(info.name, "(no plain file)")
            continue
        name = os.fsencode(info.name).decode("utf-8", "backslashreplace")
        parts = _NAME.fullmatch(name)
        if not is_visible(name):
            passed.hidden += 1
        elif parts is None:
            passed.add(name)
        else:
            yield parts[1], parts[2], info
    if tar.offset <= end:
        raise tarfile.ReadError("it ends without an end-of-archive marker; was it cut off?")


def _read(file: RandomFile, offset: int, size: int) -> bytes:
    check_encoded(size)
    image = bytearray(size)
    file.read_into(offset, memoryview(image))
    return bytes(image)


def _carried(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Read:
    try:
        check_encoded(info.size)
    except ImageError as error:  # of this item alone, and when it is read
        return failing_read(error)
    member = tar.extractfile(info)
    image = member.read() if member else b""
    if len(image) < info.size:
        raise tarfile.ReadError(f"it ends in the middle of {info.name!r}")
    return functools.partial(bytes, image)
