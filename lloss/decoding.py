"""Decode many images in threads, in order, with a bounded look-ahead."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lloss.errors import ImageError, LabelError
from lloss.files import explained
from lloss.images import ImageSpec, Pixels, decode
from lloss.pools import Item

Decoded: TypeAlias = tuple[str, Pixels | ImageError]
"""An id with its pixels, or with why there are none."""

_CHUNK = 32
_IN_MEMORY = 1 << 30


def decoded(items: Iterable[Item], spec: ImageSpec, threads: int = 0) -> Iterator[Decoded]:
    """Read and decode items, each once, in their order.

    Decoders release the interpreter's lock, so threads serve; at most two chunks of 32 images a
    thread are held at a time, however long ``items`` is.

    Args:
        items: of any pool.
        spec: what to make of each.
        threads: 0 for one a core.
    """
    threads = threads or os.cpu_count() or 1
    source = iter(items)
    waiting: deque[Future[list[Decoded]]] = deque()
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            while True:
                while len(waiting) < 2 * threads:
                    chunk = list(itertools.islice(source, _CHUNK))
                    if not chunk:
                        break
                    waiting.append(pool.submit(_decode_chunk, chunk, spec))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_chunk(items: Sequence[Item], spec: ImageSpec) -> list[Decoded]:
    return [(item.id, _decode_one(item, spec)) for item in items]


def _decode_one(item: Item, spec: ImageSpec) -> Pixels | ImageError:
    try:
        return decode(item.read(), spec)
    except ImageError as error:
        return error


def decode_all(
    items: Sequence[Item], spec: ImageSpec, scratch: Path | None = None, what: str = "labeled"
) -> NDArray[np.uint8]:
    """Decode labeled images once, for all epochs: uint8 [N, H, W, 3].

    Past one gigabyte the array lies in an unnamed file in ``scratch``, so that the operating
    system decides what of it is in memory.

    Raises:
        LabelError: one of them cannot be decoded; a training set has no holes.
    """
    shape = (len(items), spec.height, spec.width, 3)
    images: NDArray[np.uint8]
    if np.prod(shape, dtype=np.int64) > _IN_MEMORY:
        with tempfile.TemporaryFile(dir=scratch) as file:  # the mapping keeps it alive
            _take_room(file.fileno(), shape, scratch)
            images = np.memmap(file, np.uint8, "w+", shape=shape)
    else:
        images = np.empty(shape, np.uint8)
    shown = tqdm(
        decoded(items, spec), f"decode {what} images", len(items), disable=None, leave=False
    )
    for row, (id, pixels) in enumerate(shown):
        if isinstance(pixels, ImageError):
            raise LabelError(
                f"the {what} image {id!r}: {pixels}; mend it or take its row out of the labels"
            )
        images[row] = pixels
    return images


def _take_room(file: int, shape: tuple[int, ...], folder: Path | None) -> None:
    """Take all the disk that the array will need: a mapped write that finds none kills us."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, int(np.prod(shape, dtype=np.int64)))
    except OSError as error:
        raise explained(error, (folder or Path(tempfile.gettempdir())) / "images") from error
