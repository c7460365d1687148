"""Rows of a ``.npy`` or ``.npz`` array."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import PoolError
from lloss.pools.base import Item, Pool


class ArrayPool(Pool):
    """The rows of an array ``uint8 [N, H, W, 3]`` or ``[N, H, W]``; the id is the row number."""

    def __init__(self, images: NDArray[Any], uri: str) -> None:
        if images.dtype != np.uint8:
            raise PoolError(f"{uri}: an array of {images.dtype}; images are uint8, 0 to 255")
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise PoolError(
                f"{uri}: an array of shape {list(images.shape)} cannot be resized to a model's "
                "input; images are [N, H, W] or [N, H, W, 3]"
            )
        self.images = images
        self.uri = uri

    def __iter__(self) -> Iterator[Item]:
        return (self._item(row) for row in range(len(self.images)))

    def _item(self, row: int) -> Item:
        return Item(str(row), functools.partial(self.images.__getitem__, row))

    def count(self) -> int:
        """The array's length."""
        return len(self.images)

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here by index."""
        wanted = list(ids)
        unknown = [id for id in wanted if not self._holds(id)]
        if unknown:
            self._refuse(unknown[0], len(unknown))
        return [self._item(int(id)) for id in wanted]

    def _holds(self, id: str) -> bool:
        short = len(id) <= len(str(len(self.images)))  # int() refuses thousands of digits
        return (
            short
            and id.isascii()
            and id.isdecimal()
            and str(int(id)) == id
            and int(id) < len(self.images)
        )


def load_array(path: Path, name: str) -> NDArray[Any]:
    """An array of a ``.npy`` or ``.npz`` file, memory-mapped where its bytes lie plain on disk.

    Args:
        path: the file.
        name: the array's name in a ``.npz``; a ``.npz`` of one array needs none.

    Raises:
        PoolError: the file is damaged, needs pickle, or has no such array.
    """
    try:
        if path.suffix == ".npy":
            return np.lib.format.open_memmap(path, mode="r")
        with np.load(path, allow_pickle=False) as file:
            if name not in file.files and not (len(file.files) == 1 and name == "images"):
                held = ", ".join(file.files) or "none"
                raise PoolError(f"{path}: has no array {name!r} (it has {held})")
            key = name if name in file.files else file.files[0]
        mapped = _mapped_member(path, f"{key}.npy")
        if mapped is not None:
            return mapped
        with np.load(path, allow_pickle=False) as file:
            return file[key]  # type: ignore[no-any-return]
    except PoolError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise nearly anything on a broken file
        raise PoolError(f"{path}: not a readable array file: {error}") from error


def _mapped_member(path: Path, member: str) -> NDArray[Any] | None:
    """A stored (not deflated) member of a ``.npz`` as a memory map; None when it is deflated."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            if version > (2, 0):
                return None
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(stream)
            header = stream.tell()
    with path.open("rb") as file:
        # The local header's own name and extra fields may be longer than the directory's.
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    start = info.header_offset + 30 + sum(np.frombuffer(lengths, "<u2").tolist())
    if dtype.hasobject or fortran:
        return None
    return np.memmap(path, dtype, "r", start + header, shape)
