"""Boxes as the readers of objects find them, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from lloss.annotations.json_fields import BrokenError, NothingMarkedError
from lloss.annotations.label_types import DECIMALS, ObjectLabel

SLACK = 1.0
"""Pixels that a box may reach over the image's edge; it is clipped. Tools count from 0 or 1."""

Edges = tuple[float, float, float, float]
"""x0, y0, x1, y1 as in :class:`ObjectLabel`."""


class Found(NamedTuple):
    """One object, checked."""

    name: str
    box: Edges
    difficult: bool
    crowd: bool


def checked(box: Edges, size: tuple[int, int] | None, where: str, shown: str) -> Edges:
    """The box, clipped to the image.

    Args:
        box: its edges.
        size: height and width of the image; None where they are not known.
        where: its place, for messages.
        shown: it as the file has it, for messages.

    Raises:
        NothingMarkedError: it has no area, or none in the image.
        BrokenError: its edges are in the wrong order, it reaches over the image's edge by more
            than :data:`SLACK`, or it lies within the first pixel, as boxes do that are given as
            shares of the image.
    """
    if box[2] < box[0] or box[3] < box[1]:
        raise BrokenError(where, f"the box {shown} has no area: its edges are in the wrong order")
    if not has_area(box):
        raise NothingMarkedError(where, f"the box {shown} has no area")
    if max(box) <= 1 and min(box) >= -1 and size != (1, 1):  # VOC's edges are 1 less than written
        raise BrokenError(
            where,
            f"the box {shown} lies within the first pixel; it looks like shares of the image's "
            "width and height (0 to 1): give pixels",
        )
    height, width = size or (math.inf, math.inf)
    over = max(-box[0], -box[1], box[2] - width, box[3] - height)
    if over > SLACK + 1e-3:  # what decimals were rounded to
        image = f"the image of {width}×{height} pixels (width×height)" if size else "the image"
        raise BrokenError(where, f"the box {shown} lies outside {image}")
    inside = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    if not has_area(inside):
        raise NothingMarkedError(where, f"the box {shown} has no area inside the image")
    return inside


def has_area(box: Edges) -> bool:
    """Whether a box has area still in float32 and with the decimals that copies of labels keep."""
    if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
        return True  # no image is so wide that this would vanish
    x0, y0, x1, y1 = (round(float(np.float32(edge)), DECIMALS) for edge in box)
    return x1 > x0 and y1 > y0


def label_of(objects: Iterable[Found], size: tuple[int, int] | None) -> ObjectLabel:
    """An image's objects as its label."""
    found = list(objects)
    return ObjectLabel(
        tuple(one.name for one in found),
        np.array([one.box for one in found], np.float32).reshape(-1, 4),
        np.array([one.difficult for one in found], np.bool_),
        np.array([one.crowd for one in found], np.bool_),
        size,
    )


def check_class(name: str, known: frozenset[str] | None, where: str) -> None:
    """Refuse a class that ``classes.txt`` does not name."""
    if known is not None and name not in known:
        raise BrokenError(where, f"the class {name!r} is not in classes.txt")
