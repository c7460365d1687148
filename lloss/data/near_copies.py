"""Near-duplicates by what images show: frames of a video, a burst, a file saved again.

A model that was trained on an image answers for its near-duplicates better than for new images. So
they are held out together, wherever labels are held out.

Images are compared at 32×32 pixels: two are near-duplicates where the middle of the earlier one
correlates with a part of the later one, up to an eighth of the side away, whatever the brightness
and the contrast. No network is needed. Images of one even colour are near-duplicates of none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError
from lloss.images.decode import ImageSpec
from lloss.pools import Item
from lloss.text.counts import NEAR, part
from lloss.text.progress import progress

SIDE, REACH, CELL = 32, 4, 3
"""Of a print, how far the compared parts may be shifted, and pixels of which the mean is taken."""

ALIKE = 0.98
"""Correlation from which on images are near-duplicates, see benchmarks/LOG.md."""

MOST = 10_000
"""More images are not compared: all pairs take a minute of a core then."""

MEASURED = 500  # Images to measure on, at most, that are held against those trained on

EVEN = 1.0  # Deviation, of 255 levels, up to which an image shows nothing to compare

_BLOCK, _DECODED = 64, 4096

Prints = NDArray[np.floating]
"""Images at :data:`SIDE` pixels, [N, SIDE, SIDE, C], from 0 to 255."""


Middles = NDArray[np.floating]
"""What an image is compared by as the earlier one of two: [N, D], products are correlations."""


def prints_of(items: Sequence[Item]) -> NDArray[np.float16]:
    """Decode images small: float16 [N, 32, 32, 3]; zeros, as an even image, if unreadable."""
    found = decoded(items, ImageSpec(SIDE, SIDE, "stretch"))
    prints = np.zeros((len(items), SIDE, SIDE, 3), np.float16)
    shown = progress(found, "compare images", len(items), unit="images", leave=False)
    for row, (_, pixels) in enumerate(shown):
        if not isinstance(pixels, ImageError):
            prints[row] = pixels
    return prints


def middles_of(items: Sequence[Item]) -> NDArray[np.float16]:
    """Decode images small and return the middles of their prints, float16 [N, D]."""
    middles = [_part(np.zeros((0, SIDE, SIDE, 3), np.float16), REACH, REACH)]
    for start in range(0, len(items), _DECODED):
        middles.append(_part(prints_of(items[start : start + _DECODED]), REACH, REACH))
    return np.concatenate(middles).astype(np.float16)


@dataclass(frozen=True)
class Groups:
    """Images that are held out together.

    Attributes:
        first: the row of the first image of each one's group, int64 [N]; the image's own where no
            image before it is a near-duplicate.
        doubt: why each image is a group of its own, whatever it is like; "" otherwise.
    """

    first: NDArray[np.int64]
    doubt: str = ""

    @property
    def copies(self) -> int:
        """Images that are near-duplicates of one before them."""
        return len(self.first) - self.apart

    @property
    def apart(self) -> int:
        """Number of groups."""
        return len(np.unique(self.first))

    def __str__(self) -> str:
        if self.doubt:
            return self.doubt
        if not self.copies:
            return ""
        return (
            f"{part(self.copies, len(self.first), 'labeled images', NEAR)} of others: held out "
            "together with these"
        )


def groups_among(items: Sequence[Item]) -> Groups:
    """Decode images small and group near-duplicates, see :func:`groups_of`."""
    if len(items) > MOST:
        return _ungrouped(len(items))
    return groups_of(prints_of(items))


def _ungrouped(images: int) -> Groups:
    doubt = f"near-duplicates are not looked for among more than {MOST:,} images"
    return Groups(np.arange(images), doubt)


def groups_of(prints: Prints) -> Groups:
    """Group near-duplicates, and near-duplicates of these.

    Where more than half of the images would be one group, as those of a fixed camera are, or where
    there are more than :data:`MOST`, likeness does not say what to hold out together.
    """
    if len(prints) > MOST:
        return _ungrouped(len(prints))
    own = np.arange(len(prints))
    first = own.copy()
    for row, near in enumerate(_near(prints, _part(prints, REACH, REACH))):
        linked = np.unique(first[: row + 1][near[: row + 1]])
        if len(linked) > 1:
            first[np.isin(first, linked)] = linked[0]
    if (most := int(np.bincount(first, minlength=1).max())) > max(2, len(first) / 2):
        alike = f"{most} of {len(first)} labeled images are near-duplicates of each other"
        return Groups(
            own, f"{alike}, so each is held out by itself: on other scenes the model may be worse"
        )
    return Groups(first)


def near_copies(measured: Sequence[Item], trained: Middles) -> dict[str, int]:
    """Count images to measure on that are near-duplicates of images that were trained on.

    Args:
        measured: the images to measure on.
        trained: of the others, as :func:`middles_of` gives them.

    Returns:
        ``near_copies`` of ``near_copies_of`` images, at most :data:`MEASURED`, spread over all.
    """
    rows = np.linspace(0, len(measured) - 1, min(MEASURED, len(measured))).astype(int)
    some = prints_of([measured[row] for row in rows])
    count = sum(int(near.any()) for near in _near(some, trained))
    return {"near_copies": count, "near_copies_of": len(some)}


def _near(prints: Prints, others: Middles) -> Iterator[NDArray[np.bool_]]:
    """Yield for each image its near-duplicates among others, bool [M]."""
    middles = others.astype(np.float32, copy=False)
    for start in range(0, len(prints), _BLOCK):
        some = prints[start : start + _BLOCK]
        best = np.full((len(some), len(others)), -1, np.float32)
        for top in range(2 * REACH + 1):
            for left in range(2 * REACH + 1):
                np.maximum(best, _part(some, top, left) @ middles.T, out=best)
        yield from best >= ALIKE


def _part(prints: Prints, top: int, left: int) -> NDArray[np.float32]:
    """Cut a part out as vectors whose products are correlations: [N, D]; zero for even ones."""
    inner, cells = SIDE - 2 * REACH, (SIDE - 2 * REACH) // CELL
    cut = prints[:, top : top + inner, left : left + inner].astype(np.float32)
    means = cut.reshape(len(cut), cells, CELL, cells, CELL, prints.shape[3]).mean((2, 4))
    means -= means.mean((1, 2), keepdims=True)  # of each colour: a tint makes no images alike
    flat = means.reshape(len(cut), cells * cells * prints.shape[3])
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    even = norms <= EVEN * np.sqrt(flat.shape[1])
    found: NDArray[np.float32] = np.where(even, 0, flat / np.where(even, 1, norms))
    return found
