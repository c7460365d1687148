"""Which images are images of a test set: the same file, or another of the same content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError
from lloss.pools import Item, Pool
from lloss.pools.image_files import read_file

MOST_READ = 4 << 30
"""Bytes that are read of images without a file of their own, such as those in rows of tables."""

_SAMPLE = 4096
"""Bytes in the middle of an image that are compared before all of it is."""

_Size: TypeAlias = int | tuple[int, ...]
"""A file's length, or an array's shape: images of different sizes are different."""


def traces(items: Iterable[Item]) -> NDArray[np.int64]:
    """Eight bytes of each image, equal for images of equal content; fewer for unreadable ones.

    Of a file they are taken from its length and its middle, of an object in a store from its URL.
    """
    return np.frombuffer(b"".join(filter(None, map(trace, items))), np.int64)


def trace(item: Item) -> bytes | None:
    """That of one image; None if it cannot be read."""
    with _unreadable():
        content = None if isinstance(item.file, str) else _content(item)
        if content is not None:
            parts = repr(content.size).encode() + content.sample()
        elif isinstance(item.file, str):
            parts = item.file.encode()
        else:
            return None
        return hashlib.blake2b(parts, digest_size=8).digest()
    return None


@dataclass(frozen=True)
class Overlap:
    """Images that are images of a test set.

    Attributes:
        ids: the id in the test set, by the image's own.
        whole: whether the content of all images was compared, not only where they lie.
    """

    ids: dict[str, str]
    whole: bool = True


def refuse_overlap(labeled: LabeledSet, test: LabeledSet) -> None:
    """Refuse labels to train on and to test on that share ids of one pool.

    Raises:
        LabelError: they do.
    """
    tested = {item.id for item in test.items}
    both = next((item.id for item in labeled.items if item.id in tested), None)
    if both is not None:
        raise LabelError(
            f"{both!r} is in {labeled.origin} and in {test.origin}: "
            "an image is trained on or tested on, not both"
        )


def apart(labeled: LabeledSet, test: LabeledSet, problems: Problems) -> LabeledSet:
    """The labeled images that are not in the test set; the others are counted in a note."""
    both = KnownImages(test.items).among(labeled.items).ids
    if not both:
        return labeled
    problems.note(
        f"{labeled.origin}: {len(both)} of {len(labeled)} labeled images are in the test set too "
        f"({_example(both)}): not trained on"
    )
    return labeled.take(row for row, item in enumerate(labeled.items) if item.id not in both)


def seen_note(test: LabeledSet, trained: NDArray[np.int64]) -> str:
    """What to know where images to measure on were trained on; "" where none was.

    Args:
        test: the images to measure on.
        trained: :func:`traces` of the images that were trained on.
    """
    seen = int(np.isin(traces(test.items), trained).sum()) if len(trained) else 0
    if not seen:
        return ""
    return (
        f"{test.origin}: {seen} of {len(test)} images are among those that the network was trained "
        "on: on new images it is worse than measured here"
    )


def found_in_pool(pool: Pool, test: LabeledSet, own: set[str], problems: Problems) -> set[str]:
    """The ids of a pool's images that are images of a test set.

    Args:
        pool: of any kind.
        test: the test set.
        own: ids that are known to be of the test set, and need no note.
        problems: a note of the others goes there, or of what cannot be known.
    """
    found = KnownImages(test.items).in_pool(pool)
    others = {id: same for id, same in found.ids.items() if id not in own}
    if others:
        many = f"{len(others)} images of the pool are" if len(others) > 1 else "1 image is"
        problems.note(
            f"{pool.uri}: {many} in the test set {test.origin} ({_example(others)}): "
            "neither scored nor selected"
        )
    if not found.whole and not own:
        problems.note(
            f"{pool.uri}: images that are in the test set too are left out where their paths say "
            "so; their content was not compared"
        )
    return set(others)


def _example(ids: dict[str, str]) -> str:
    id, test = next(iter(ids.items()))
    return f"such as {id!r}" if id == test else f"such as {id!r}, there {test!r}"


class KnownImages:
    """Recognizes the images of a test set among others.

    Files are compared by where they lie, links followed, then by their bytes. Only files of equal
    length are opened, and only those of equal bytes in the middle are read whole.

    Args:
        items: the images of the test set.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._places: dict[object, str] = {}
        self._groups: defaultdict[_Size, _Group] = defaultdict(_Group)
        for item in items:
            if isinstance(item.file, str):
                self._places[item.file] = item.id
                continue
            content = _content(item)
            if isinstance(content, _File):
                self._places[content.place] = item.id
            if content is not None:
                self._groups[content.size].add(item.id, content)

    def in_pool(self, pool: Pool) -> Overlap:
        """Find them in a pool; in a remote one by their URLs, since its content is far away."""
        if not pool.remote:
            return self.among(pool)
        if not any(isinstance(place, str) for place in self._places):
            return Overlap({}, whole=False)
        return Overlap(self.among(pool).ids, whole=False)

    def among(self, items: Iterable[Item]) -> Overlap:
        """Find them among other images."""
        found: dict[str, str] = {}
        known: dict[object, str | None] = {}  # of files with several items, one a region
        left, kinds = MOST_READ, {type(size) for size in self._groups}
        for item in items:
            if isinstance(item.file, str):
                same = self._places.get(item.file)
            elif item.file is None and left < 0:
                continue
            else:
                content = _content(item)
                if item.file is None and content is not None:
                    left = left - content.length if type(content.size) in kinds else -1
                same = self._same(content, known)
            if same is not None:
                found[item.id] = same
        return Overlap(found, whole=left >= 0)

    def _same(self, content: _Content | None, known: dict[object, str | None]) -> str | None:
        if not isinstance(content, _File):
            return None if content is None else self._alike(content)
        if content.place in self._places:
            return self._places[content.place]
        if content.place not in known:
            known[content.place] = self._alike(content)
        return known[content.place]

    def _alike(self, content: _Content) -> str | None:
        return self._groups[content.size].find(content) if content.size in self._groups else None


class _Content(Protocol):
    """The bytes of an image."""

    @property
    def size(self) -> _Size: ...

    @property
    def length(self) -> int: ...

    def sample(self) -> bytes:
        """Some bytes in the middle."""

    def digest(self) -> bytes:
        """Of all bytes."""


@dataclass(frozen=True, slots=True)
class _File:
    path: bytes
    place: tuple[int, int]
    size: int

    @property
    def length(self) -> int:
        return self.size

    def sample(self) -> bytes:
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123  Path knows no bytes
            file.seek(_middle(self.size))
            return file.read(_SAMPLE)

    def digest(self) -> bytes:
        return hashlib.sha256(read_file(self.path)).digest()


@dataclass(frozen=True, slots=True)
class _Read:
    """An image that was read; what is kept of it is small."""

    size: _Size
    length: int
    middle: bytes
    sha256: bytes

    @classmethod
    def of(cls, raw: bytes | NDArray[np.generic]) -> _Read:
        size: _Size = len(raw)
        if isinstance(raw, np.ndarray):
            size, raw = raw.shape, np.ascontiguousarray(raw).tobytes()
        at = _middle(len(raw))
        return cls(size, len(raw), raw[at : at + _SAMPLE], hashlib.sha256(raw).digest())

    def sample(self) -> bytes:
        return self.middle

    def digest(self) -> bytes:
        return self.sha256


class _Group:
    """Images of one size. They are sampled, and then read whole, when another one is like them."""

    def __init__(self) -> None:
        self._new: list[tuple[str, _Content]] = []
        self._samples: defaultdict[bytes, list[tuple[str, _Content]]] = defaultdict(list)
        self._digests: defaultdict[bytes, dict[bytes, str]] = defaultdict(dict)

    def add(self, id: str, content: _Content) -> None:
        self._new.append((id, content))

    def find(self, content: _Content) -> str | None:
        """The image with the same bytes, if there is one."""
        with _unreadable():
            sample = content.sample()
            while self._new:
                one = self._new.pop()
                with _unreadable():
                    self._samples[one[1].sample()].append(one)
            alike, digests = self._samples.get(sample, []), self._digests[sample]
            while alike:
                id, other = alike.pop()
                with _unreadable():
                    digests[other.digest()] = id
            return digests.get(content.digest()) if digests else None
        return None


def _unreadable() -> contextlib.suppress:
    """Leave out what cannot be read: the step that needs the image says why."""
    return contextlib.suppress(OSError, ImageError)


def _content(item: Item) -> _Content | None:
    """What an item's image is compared by; None if it cannot be read."""
    if isinstance(item.file, bytes):
        try:
            status = os.stat(item.file)  # noqa: PTH116  Path knows no bytes
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return _File(item.file, (status.st_dev, status.st_ino), status.st_size)
    try:
        return _Read.of(item.read())
    except ImageError:
        return None


def _middle(size: int) -> int:
    return max(0, size - _SAMPLE) // 2
