"""Images of a test set that are in other sets too: the same file, or one of the same content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError
from lloss.pools import Item, Pool
from lloss.pools.image_files import read_file
from lloss.text.counts import counted, part

_SAMPLE = 4096  # Bytes in the middle of an image that are compared before all of it is

_Sample: TypeAlias = tuple[int | tuple[int, ...], bytes]
"""A file's length or an array's shape, and the bytes in the middle; of a remote object its URL."""


def traces(items: Iterable[Item]) -> NDArray[np.int64]:
    """Eight bytes of each image, equal for images of equal content; unreadable ones have none."""
    return np.frombuffer(b"".join(filter(None, map(trace, items))), np.int64)


def trace(item: Item) -> bytes | None:
    """Eight bytes of a file's length and middle, or of an object's URL; None if unreadable."""
    with _unreadable():
        size, middle = _sample(item)
        shown = b"" if isinstance(item.file, str) else repr(size).encode()
        return hashlib.blake2b(shown + middle, digest_size=8).digest()
    return None


def without_test_images(labeled: LabeledSet, test: LabeledSet, problems: Problems) -> LabeledSet:
    """The labeled images that are not in the test set; a note counts the others."""
    both = shared_images(labeled.items, test.items)
    if not both:
        return labeled
    problems.note(
        f"{labeled.origin}: {part(len(both), len(labeled), 'labeled images', 'are')} in the "
        f"test set too ({_example(both)}): not trained on"
    )
    return labeled.take(row for row, item in enumerate(labeled.items) if item.id not in both)


def trained_on(items: Sequence[Item], trained: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Find items, bool [N], among the :func:`traces` of images that were trained on."""
    if not len(trained):
        return np.zeros(len(items), bool)
    known = {value.tobytes() for value in trained}
    return np.array([trace(item) in known for item in items], bool)


def trained_on_note(test: LabeledSet, seen: NDArray[np.bool_]) -> str:
    """Warn of images to measure on that are :func:`trained_on`, bool [N]; "" without any."""
    if not seen.any():
        return ""
    return (
        f"{test.origin}: {part(seen.sum(), len(test), 'images', 'are')} among those that the "
        "network was trained on: on new images it is worse than measured here"
    )


def find_test_images(pool: Pool, test: LabeledSet, own: set[str], problems: Problems) -> set[str]:
    """The ids of a pool's images that are images of a test set.

    Those of ``own`` are known to be; notes count the others. Of a remote pool only URLs are
    compared, since its content is far away.
    """
    found: dict[str, str] = {}
    if not pool.remote or any(isinstance(item.file, str) for item in test.items):
        found = shared_images(pool, test.items)
    others = {id: same for id, same in found.items() if id not in own}
    if others:
        many = counted(len(others), "image of the pool is", "images of the pool are")
        problems.note(
            f"{pool.uri}: {many} in the test set {test.origin} ({_example(others)}): "
            "neither scored nor selected"
        )
    if pool.remote and not own:
        problems.note(
            f"{pool.uri}: images that are in the test set too are left out where their paths say "
            "so; their content was not compared"
        )
    return set(others)


def _example(ids: dict[str, str]) -> str:
    id, test = next(iter(ids.items()))
    return f"such as {id!r}" if id == test else f"such as {id!r}, there {test!r}"


def shared_images(items: Iterable[Item], test: Iterable[Item]) -> dict[str, str]:
    """The items that are images of a test set: the id there by the item's own.

    Only files of equal length are opened, and only those of equal bytes in the middle are read
    whole. What cannot be read is left out: the step that needs it says why.
    """
    known: defaultdict[_Sample, list[Item]] = defaultdict(list)
    for item in test:
        with _unreadable():
            known[_sample(item)].append(item)
    sizes = {size for size, _ in known}
    found: dict[str, str] = {}
    for item in items:
        with _unreadable():
            if isinstance(item.file, bytes) and _length(item.file) not in sizes:
                continue
            for other in known.get(_sample(item), ()):
                same_file = item.file is not None and item.file == other.file
                if same_file or _content(item) == _content(other):
                    found[item.id] = other.id
                    break
    return found


def _unreadable() -> contextlib.suppress:
    return contextlib.suppress(OSError, ValueError, ImageError)


def _sample(item: Item) -> _Sample:
    if isinstance(item.file, str):
        return (), item.file.encode()
    if isinstance(item.file, bytes):
        length = _length(item.file)
        with open(item.file, "rb", buffering=0) as file:  # noqa: PTH123  Path knows no bytes
            file.seek(_middle(length))
            return length, file.read(_SAMPLE)
    raw = item.read()
    content = raw.tobytes() if isinstance(raw, np.ndarray) else raw
    at = _middle(len(content))
    size = raw.shape if isinstance(raw, np.ndarray) else len(raw)
    return size, content[at : at + _SAMPLE]


def _length(path: bytes) -> int:
    status = os.stat(path)  # noqa: PTH116  Path knows no bytes
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("is not a regular file")
    return status.st_size


def _middle(size: int) -> int:
    return max(0, size - _SAMPLE) // 2


def _content(item: Item) -> bytes:
    """All bytes of an image; of a person, those of the file that shows it."""
    raw = read_file(item.file) if isinstance(item.file, bytes) else item.read()
    return raw.tobytes() if isinstance(raw, np.ndarray) else raw
