"""Images that a caller passes to a scorer, as a pool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lloss.errors import PoolError
from lloss.pools import ArrayPool, Item, Pool, open_pool
from lloss.pools.image_files import read_file

Images: TypeAlias = (
    "NDArray[np.uint8] | Sequence[bytes | str | Path | NDArray[np.uint8]] | str | Path | Pool"
)
"""The images of :meth:`.scorer.Scorer.score`."""

_CHANNELS = 4
"""A last axis of up to this length holds an image's channels, and not grey pixels."""


class _ListPool(Pool):
    """A list of images or of their paths."""

    uri = "images in memory"
    unique = True

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Item]:
        return (_item(row, image) for row, image in enumerate(self.images))


def _item(row: int, image: Any) -> Item:
    if isinstance(image, (str, Path)):
        return Item(str(image), lambda: read_file(Path(image)))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return Item(str(row), lambda: bytes(image))
    if isinstance(image, np.ndarray):
        if image.ndim == 2 and image.shape[1] <= _CHANNELS:
            raise PoolError(
                f"image {row} is an array {list(image.shape)}, which looks like a row of pixels: "
                "give a list of images, each uint8 [H, W, 3]"
            )
        return Item(str(row), lambda: image)
    raise PoolError(
        f"image {row} is a {type(image).__name__}: give bytes, a path or an array uint8 [H, W, 3]"
    )


def pool_of(images: Any) -> Pool:
    """Make a pool of :data:`Images`.

    Raises:
        PoolError: an array that is not uint8 or of another shape, one image instead of a batch, or
            an image of an unknown type.
    """
    if isinstance(images, Pool):
        return images
    if isinstance(images, np.ndarray) and images.dtype != object:
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise PoolError(
                f"images of {images.dtype} {list(images.shape)}: give uint8 [N, H, W, 3]"
            )
        if images.ndim == 3 and images.shape[2] <= _CHANNELS:
            raise PoolError(
                f"an array {list(images.shape)} is one image: give a batch of one, image[None]"
            )
        return ArrayPool(images, "array in memory")
    if isinstance(images, (str, Path)):
        return open_pool(images)
    if isinstance(images, bytes):
        raise PoolError("one bytes: give a list of images")
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise PoolError(f"a {type(images).__name__}: give an array, a list of images, or a pool")
    return _ListPool(list(images))
