"""Images of a test set that are in other sets too: the same file, or one of the same content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

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
    """Eight bytes of each image, equal for images of equal content; unreadable ones have none."""
    return np.frombuffer(b"".join(filter(None, map(trace, items))), np.int64)


def trace(item: Item) -> bytes | None:
    """Eight bytes of a file's length and middle, or of an object's URL; None if unreadable."""
    with _unreadable():
        if isinstance(item.file, str):
            return hashlib.blake2b(item.file.encode(), digest_size=8).digest()
        if (content := _content(item)) is not None:
            parts = repr(content.size).encode() + content.sample
            return hashlib.blake2b(parts, digest_size=8).digest()
    return None


@dataclass(frozen=True)
class Overlap:
    """Images that are images of a test set.

    Attributes:
        ids: the id in the test set, by the image's own.
        whole: whether the content of all images was compared, not only their places.
    """

    ids: dict[str, str]
    whole: bool = True


def refuse_overlap(labeled: LabeledSet, test: LabeledSet) -> None:
    """Refuse labels to train on and to test on that share ids of one pool."""
    tested = {item.id for item in test.items}
    both = next((item.id for item in labeled.items if item.id in tested), None)
    if both is not None:
        raise LabelError(
            f"{both!r} is in {labeled.origin} and in {test.origin}: "
            "an image is trained on or tested on, not both"
        )


def without_test_images(labeled: LabeledSet, test: LabeledSet, problems: Problems) -> LabeledSet:
    """The labeled images that are not in the test set; a note counts the others."""
    both = ImageFinder(test.items).among(labeled.items).ids
    if not both:
        return labeled
    problems.note(
        f"{labeled.origin}: {len(both)} of {len(labeled)} labeled images are in the test set too "
        f"({_example(both)}): not trained on"
    )
    return labeled.take(row for row, item in enumerate(labeled.items) if item.id not in both)


def trained_on_note(test: LabeledSet, trained: NDArray[np.int64]) -> str:
    """Warn where images to measure on are among the :func:`traces` that were trained on; else
    "".
    """
    seen = int(np.isin(traces(test.items), trained).sum()) if len(trained) else 0
    if not seen:
        return ""
    return (
        f"{test.origin}: {seen} of {len(test)} images are among those that the network was trained "
        "on: on new images it is worse than measured here"
    )


def find_test_images(pool: Pool, test: LabeledSet, own: set[str], problems: Problems) -> set[str]:
    """The ids of a pool's images that are images of a test set.

    Those of ``own`` are known to be; notes count the others, or name images that could not be
    compared.
    """
    found = ImageFinder(test.items).in_pool(pool)
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


class ImageFinder:
    """Finds the images of a test set among others.

    Files are compared by their place, links followed, then by their bytes. Only files of equal
    length are opened, and only those of equal bytes in the middle are read whole.

    Args:
        items: the images of the test set.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._places: dict[object, str] = {}
        self._by_size: defaultdict[_Size, list[tuple[str, _Content]]] = defaultdict(list)
        self._by_sample: dict[_Size, dict[bytes, list[tuple[str, _Content]]]] = {}
        for item in items:
            if isinstance(item.file, str):
                self._places[item.file] = item.id
            elif (content := _content(item)) is not None:
                if content.place:
                    self._places[content.place] = item.id
                self._by_size[content.size].append((item.id, content))

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
        by_place: dict[object, str | None] = dict(self._places)  # several items may share a file
        left, kinds = MOST_READ, {type(size) for size in self._by_size}
        for item in items:
            if isinstance(item.file, str):
                same = self._places.get(item.file)
            elif (item.file is None and left < 0) or (content := _content(item)) is None:
                continue
            elif content.place:
                if content.place not in by_place:
                    by_place[content.place] = self._find(content)
                same = by_place[content.place]
            else:
                left = left - content.length if type(content.size) in kinds else -1
                same = self._find(content)
            if same is not None:
                found[item.id] = same
        return Overlap(found, whole=left >= 0)

    def _find(self, content: _Content) -> str | None:
        """The image with the same bytes."""
        if content.size not in self._by_size:
            return None
        with _unreadable():
            for id, other in self._samples(content.size).get(content.sample, ()):
                with _unreadable():
                    if other.digest == content.digest:
                        return id
        return None

    def _samples(self, size: _Size) -> dict[bytes, list[tuple[str, _Content]]]:
        """The images of a size by their samples, which are read once another has this size."""
        if size not in self._by_sample:
            samples = self._by_sample[size] = {}
            for id, content in self._by_size[size]:
                with _unreadable():
                    samples.setdefault(content.sample, []).append((id, content))
        return self._by_sample[size]


@dataclass
class _Content:
    """The bytes of an image, compared by ``size`` first; of a file they are read when asked for.

    Without a ``path`` the image was read whole, and ``sample`` and ``digest`` are set.
    """

    size: _Size
    length: int
    path: bytes | None = None
    place: tuple[int, int] | None = None

    @cached_property
    def sample(self) -> bytes:
        assert self.path is not None
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123  Path knows no bytes
            file.seek(_middle(self.length))
            return file.read(_SAMPLE)

    @cached_property
    def digest(self) -> bytes:
        assert self.path is not None
        return hashlib.sha256(read_file(self.path)).digest()


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
        place = (status.st_dev, status.st_ino)
        return _Content(status.st_size, status.st_size, item.file, place)
    try:
        raw = item.read()
    except ImageError:
        return None
    size: _Size = len(raw)
    if isinstance(raw, np.ndarray):
        size, raw = raw.shape, np.ascontiguousarray(raw).tobytes()
    content = _Content(size, len(raw))
    at = _middle(len(raw))
    content.sample, content.digest = raw[at : at + _SAMPLE], hashlib.sha256(raw).digest()
    return content


def _middle(size: int) -> int:
    return max(0, size - _SAMPLE) // 2
