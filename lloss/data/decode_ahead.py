"""Decode many images in threads, in order, with a bounded look-ahead."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from lloss.errors import ImageError, LabelError
from lloss.files import write_error
from lloss.images.decode import ImageSpec, Pixels, decode
from lloss.pools.pool import Item
from lloss.runtime.cpu_count import usable_cores
from lloss.text.progress import progress

Decoded: TypeAlias = tuple[str, Pixels | ImageError]
"""An id with its pixels, or with why there are none."""

_CHUNK = 32
_CHUNK_BYTES = 16 << 20
_IN_MEMORY = 1 << 30

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def decoded(items: Iterable[Item], spec: ImageSpec, threads: int = 0) -> Iterator[Decoded]:
    """Read and decode items, in their order; 0 threads is one per core.

    At most two chunks of 32 images (or of 16 MB, if that is fewer) per thread are held at a time.
    """

    def work(item: Item) -> Decoded:
        try:
            return item.id, decode(item.read(), spec)
        except ImageError as error:
            return item.id, error

    size = max(1, min(_CHUNK, _CHUNK_BYTES // (spec.height * spec.width * 3)))
    return _mapped(work, items, threads, size)


def _mapped(
    work: Callable[[_In], _Out], items: Iterable[_In], threads: int, size: int = _CHUNK
) -> Iterator[_Out]:
    """``map`` in threads: in order, ``size`` items per task, at most two tasks ahead per thread."""
    threads = threads or usable_cores()
    source = iter(items)
    chunks = iter(lambda: list(itertools.islice(source, size)), [])
    waiting: deque[Future[list[_Out]]] = deque()
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(lambda chunk: [work(item) for item in chunk], chunk))
                if len(waiting) == 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def decode_with(
    decoder: Callable[[int, Pixels], _Out],
    failed: Callable[[int, ImageError | LabelError], None],
    items: Sequence[Item],
    spec: ImageSpec,
    scratch: Path | None = None,
    what: str = "labeled",
) -> tuple[NDArray[np.uint8], list[_Out | None]]:
    """Decode labeled images once, for all epochs, and keep what the decoder learned of each.

    Past one gigabyte the array is an unnamed file in ``scratch``, so that the operating system
    decides what of it is in memory.

    Args:
        decoder: decodes the image of a row into its place ``uint8 [H, W, 3]``; in threads.
        failed: receives, in order, each row whose decoder raised; what it raises ends the work.
        items: of any pool.
        spec: of the array.
        scratch: a folder with enough disk space.
        what: the images are, for messages.

    Returns uint8 [N, H, W, 3], and the decoder's result of each; None where it failed.
    """
    shape = (len(items), spec.height, spec.width, 3)
    images: NDArray[np.uint8]
    if np.prod(shape, dtype=np.int64) > _IN_MEMORY:
        with _scratch_file(shape, scratch) as file:  # the mapping keeps it alive
            images = np.memmap(file, np.uint8, "w+", shape=shape)
    else:
        images = np.empty(shape, np.uint8)

    def fill(row: int) -> _Out | ImageError | LabelError:
        try:
            return decoder(row, images[row])
        except (ImageError, LabelError) as error:
            return error

    found = _mapped(fill, range(len(items)), 0)
    shown = progress(found, f"decode {what} images", len(items), unit="images", leave=False)
    results: list[_Out | None] = []
    for row, result in enumerate(shown):
        if isinstance(result, (ImageError, LabelError)):
            failed(row, result)
            results.append(None)
        else:
            results.append(result)
    return images, results


@contextlib.contextmanager
def _scratch_file(shape: tuple[int, ...], folder: Path | None) -> Iterator[IO[bytes]]:
    """An unnamed file with all the disk space of an array: a full disk would kill the process."""
    where = folder or Path(tempfile.gettempdir())
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=where))
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, int(np.prod(shape, dtype=np.int64)))
        except OSError as error:
            remedy = "free some space" + ("" if folder else ", or set TMPDIR to another folder")
            raise write_error(error, where, remedy) from error
        yield file
