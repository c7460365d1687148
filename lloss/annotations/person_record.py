"""One person of a file, whatever its dialect."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations.json_fields import BrokenError
from lloss.annotations.label_types import PersonLabel
from lloss.images.crop_box import CropBox
from lloss.images.decode import MAX_PIXELS

MOST_SIDE = math.isqrt(MAX_PIXELS)
"""Pixels; a larger square is refused as an image of its size would be."""

BOX_SCALE = 1.25
"""A person's region is a square with the box's centre and this many times its longer side."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person that a file tells of.

    Attributes:
        where: its entry: ``train.json: [12]``.
        image_where: where the image's name stands.
        image: the name.
        id: image and place in the file's own numbers: ``image@cx,cy,scale`` or ``image@x,y,w,h``.
        region: gives the square of the image to be looked at; raises :class:`BrokenError`.
        label: gives the joints, None where none is annotated; raises likewise.
        size: height and width of the image, where the file tells them.
    """

    where: str
    image_where: str
    image: str
    id: str
    region: Callable[[], CropBox]
    label: Callable[[], PersonLabel | None]
    size: tuple[int, int] | None = None


def person_id(image: str, *numbers: float) -> str:
    """The id of a person: the same wherever the same numbers stand, as ``2`` or as ``2.0``."""
    return f"{image}@" + ",".join(f"{number + 0.0:.10g}" for number in numbers)


def square(x: float, y: float, side: float, size: tuple[int, int] | None, where: str) -> CropBox:
    """The region with this centre, in edges' coordinates.

    Raises:
        BrokenError: it has no size or too much, or does not touch an image of that height and
            width.
    """
    if side < 1:
        raise BrokenError(where, f"a region of {side:g} pixels a side")
    if side > MOST_SIDE:
        raise BrokenError(where, f"a region of {side:g} pixels a side, over {MOST_SIDE}")
    region = CropBox.around(x, y, side)
    if size is not None and not touches(region, size):
        shown = f"{region.side} pixels a side at {region.left}, {region.top} (left, top)"
        image = f"the image of {size[1]}×{size[0]} pixels (width×height)"
        raise BrokenError(where, f"a region of {shown} does not touch {image}")
    return region


def boxed(box: Sequence[float], size: tuple[int, int] | None, where: str) -> CropBox:
    """The region around a box x, y, width, height.

    Raises:
        BrokenError: the box has no area, or as :func:`square`.
    """
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise BrokenError(where, f"the box {x:g}, {y:g}, {width:g}, {height:g} has no area")
    side = max(width, height) * BOX_SCALE
    return square(x + width / 2, y + height / 2, side, size, where)


def far_joint(
    joints: NDArray[np.floating[Any]], annotated: NDArray[np.bool_], size: tuple[int, int]
) -> int | None:
    """The first annotated joint that lies more than the image's own side outside of it.

    A joint that the image's edge cuts off may be annotated where it would be; one so far away is a
    slip, and would be learned from as one that is not there.

    Args:
        joints: x, y in pixels, float [J, 2].
        annotated: bool [J].
        size: the image's height and width.
    """
    sides = np.array(size[::-1])
    far = ((joints < -sides) | (joints > 2 * sides)).any(1) & annotated
    return int(far.argmax()) if far.any() else None


def check_joints(label: PersonLabel, size: tuple[int, int], where: str) -> None:
    """Refuse joints that cannot belong to an image of this height and width.

    Raises:
        BrokenError: as :func:`far_joint` tells.
    """
    far = far_joint(label.joints, label.annotated, size)
    if far is not None:
        raise BrokenError(where, far_away(label.names[far], label.joints[far].tolist(), size))


def check_pixels(
    joints: NDArray[np.floating[Any]], annotated: NDArray[np.bool_], where: str
) -> None:
    """Refuse joints that all lie within the first pixel, as shares of the image do.

    Args:
        joints: x, y in pixels, float [J, 2].
        annotated: bool [J].
        where: the person's place, for messages.

    Raises:
        BrokenError: two or more are annotated, and they all do.
    """
    known = joints[annotated]
    if len(known) > 1 and (np.abs(known) <= 1).all() and np.ptp(known, axis=0).any():
        raise BrokenError(
            where,
            "all joints lie within the first pixel; they look like shares of the image's width "
            "and height (0 to 1): give pixels",
        )


def far_away(name: str, joint: Sequence[float], size: tuple[int, int]) -> str:
    """What is wrong with a joint that :func:`far_joint` tells."""
    image = f"the image of {size[1]}×{size[0]} pixels (width×height)"
    return f"the joint {name!r} at {joint[0]:g}, {joint[1]:g} (x, y) lies far outside {image}"


def touches(region: CropBox, size: tuple[int, int]) -> bool:
    """Whether a region and an image of this height and width have a pixel in common."""
    height, width = size
    across = region.left < width and region.left + region.side > 0
    return across and region.top < height and region.top + region.side > 0
