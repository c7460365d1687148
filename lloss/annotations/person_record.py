"""One person of a file, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations.label_types import PersonLabel
from lloss.annotations.problems import AnnotationError
from lloss.images.crop_box import CropBox
from lloss.images.decode import MAX_PIXELS

MOST_SIDE = math.isqrt(MAX_PIXELS)
"""Pixels; a larger square is refused as an image of its size would be."""

BOX_SCALE = 1.25
"""A person's region is a square with the box's centre and this many times its longer side."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person of a file; ``region`` and ``label`` raise :class:`AnnotationError`."""

    where: str  # its entry: `train.json: [12]`
    image_where: str  # the place of the image's name
    image: str
    id: str  # image and place in the file's numbers: `image@cx,cy,scale` or `image@x,y,w,h`
    region: Callable[[], CropBox]  # gives the square of the image to look at
    label: Callable[[], PersonLabel | None]  # gives the joints; None where none is annotated
    size: tuple[int, int] | None = None  # height and width of the image, if the file has them


def person_id(image: str, *numbers: float) -> str:
    """The id of a person: equal for equal numbers, written as ``2`` or as ``2.0``."""
    return f"{image}@" + ",".join(f"{number + 0.0:.10g}" for number in numbers)


def square_region(
    x: float, y: float, side: float, size: tuple[int, int] | None, where: str
) -> CropBox:
    """The region with this centre, in edges' coordinates; it touches an image of a known size."""
    if side < 1:
        raise AnnotationError(where, f"a region of {side:g} pixels a side")
    if side > MOST_SIDE:
        raise AnnotationError(where, f"a region of {side:g} pixels a side, over {MOST_SIDE}")
    region = CropBox.around(x, y, side)
    if size is not None and not touches(region, size):
        shown = f"{region.side} pixels a side at {region.left}, {region.top} (left, top)"
        raise AnnotationError(where, f"a region of {shown} does not touch {_image(size)}")
    return region


def box_region(box: Sequence[float], size: tuple[int, int] | None, where: str) -> CropBox:
    """The region around a box x, y, width, height."""
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise AnnotationError(where, f"the box {x:g}, {y:g}, {width:g}, {height:g} has no area")
    side = max(width, height) * BOX_SCALE
    return square_region(x + width / 2, y + height / 2, side, size, where)


def check_joints(
    names: Sequence[str],
    joints: NDArray[np.floating[Any]],
    annotated: NDArray[np.bool_],
    size: tuple[int, int],
    where: str,
) -> None:
    """Refuse an annotated joint farther outside of the image than the image's own side.

    A joint that the image's edge cuts off may be annotated where it would be; one so far away is a
    mistake. Joints are x, y in pixels, float [J, 2]; the size is the image's height and width.
    """
    sides = np.array(size[::-1])
    far = ((joints < -sides) | (joints > 2 * sides)).any(1) & annotated
    if far.any():
        joint = int(far.argmax())
        shown = f"{joints[joint, 0]:g}, {joints[joint, 1]:g} (x, y)"
        what = f"the joint {names[joint]!r} at {shown} is far outside {_image(size)}"
        raise AnnotationError(where, what)


def check_pixels(
    joints: NDArray[np.floating[Any]], annotated: NDArray[np.bool_], where: str
) -> None:
    """Refuse joints, float [J, 2], that are all within the first pixel, as shares of the image."""
    marked = joints[annotated]
    if len(marked) > 1 and (np.abs(marked) <= 1).all() and np.ptp(marked, axis=0).any():
        raise AnnotationError(
            where,
            "all joints are within the first pixel; they look like shares of the image's width "
            "and height (0 to 1): give pixels",
        )


def touches(region: CropBox, size: tuple[int, int]) -> bool:
    """Whether a region and an image of this height and width have a pixel in common."""
    height, width = size
    across = region.left < width and region.left + region.side > 0
    return across and region.top < height and region.top + region.side > 0


def _image(size: tuple[int, int]) -> str:
    return f"the image of {size[1]}×{size[0]} pixels (width×height)"
