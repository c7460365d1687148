"""The boxes of an image, checked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lloss.annotations.label_types import DECIMALS, ObjectLabel
from lloss.annotations.problems import AnnotationError, EmptyBoxError, Problems

SLACK = 1.0
"""Pixels that a box may reach over the image's edge; it is clipped. Tools count from 0 or 1."""

Edges = tuple[float, float, float, float]
"""x0, y0, x1, y1 as in :class:`ObjectLabel`."""


class BoxedObject(NamedTuple):
    """One object of an image."""

    name: str
    box: Edges
    difficult: bool = False
    crowd: bool = False


@dataclass(slots=True)
class ObjectList:
    """The objects of one image.

    ``complete`` is False once an object is broken: the image would be learned from as background
    where that object is, so its label cannot be used.
    """

    objects: list[BoxedObject] = field(default_factory=list)
    complete: bool = True

    @contextlib.contextmanager
    def skipping(self, problems: Problems) -> Iterator[None]:
        """Handle one object as :meth:`Problems.skipping` does an image."""
        with problems.skipping():
            try:
                yield
            except AnnotationError as error:
                self.complete = self.complete and isinstance(error, EmptyBoxError)
                raise

    def label(self, size: tuple[int, int] | None, shares: bool = False) -> ObjectLabel:
        """The objects as a label of an image of this height and width, see ``ObjectLabel``."""
        return ObjectLabel(
            tuple(one.name for one in self.objects),
            np.array([one.box for one in self.objects], np.float32).reshape(-1, 4),
            np.array([one.difficult for one in self.objects], np.bool_),
            np.array([one.crowd for one in self.objects], np.bool_),
            size,
            shares,
        )


@dataclass(slots=True)
class ListedImage:
    """An image of an annotation file: its place in it, name, height and width, and objects."""

    where: str
    name: str
    size: tuple[int, int] | None
    objects: ObjectList = field(default_factory=ObjectList)


def usable_images(
    images: Iterable[ListedImage], origin: str, problems: Problems
) -> list[ListedImage]:
    """The images without a broken object; mark the others of this file unusable."""
    usable = []
    for image in images:
        if image.objects.complete:
            usable.append(image)
        else:
            problems.mark_unusable(origin, image.name)
    return usable


def check_box(
    box: Edges, size: tuple[int, int] | None, where: str, written: Sequence[float], fields: str
) -> Edges:
    """Clip the edges of a box to an image of this height and width, if those are known.

    Messages show the numbers as ``written`` in the file, and the names of these ``fields``.

    Raises:
        EmptyBoxError: it has no area, or none in the image.
        AnnotationError: its edges are in the wrong order, it reaches over the image's edge by more
            than :data:`SLACK`, or it is within the first pixel, as shares of the image do.
    """
    shown = "the box " + ", ".join(f"{number:g}" for number in written) + f" ({fields})"
    if box[2] < box[0] or box[3] < box[1]:
        raise AnnotationError(where, f"{shown} has no area: its edges are in the wrong order")
    if not _has_area(box):
        raise EmptyBoxError(where, f"{shown} has no area")
    if max(box) <= 1 and min(box) >= -1 and size != (1, 1):  # VOC's edges are 1 less than written
        raise AnnotationError(
            where,
            f"{shown} is within the first pixel; it looks like shares of the image's width and "
            "height (0 to 1): give pixels",
        )
    height, width = size or (math.inf, math.inf)
    over = max(-box[0], -box[1], box[2] - width, box[3] - height)
    if over > SLACK + 1e-3:  # the error of rounded decimals
        image = f"the image of {width}×{height} pixels (width×height)" if size else "the image"
        raise AnnotationError(where, f"{shown} is outside {image}")
    inside = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    if not _has_area(inside):
        raise EmptyBoxError(where, f"{shown} has no area inside the image")
    return inside


def check_turned_box(box: Edges, size: tuple[int, int] | None, where: str) -> Edges:
    """Clip the upright box around a turned one, whose corners may be outside of the image."""
    height, width = size or (math.inf, math.inf)
    inside = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    return check_box(inside, size, where, box, "edges of the turned box")


def box_around(points: Sequence[Sequence[float]]) -> Edges:
    """The upright box around points x, y."""
    xs, ys = zip(*points)
    return min(xs), min(ys), max(xs), max(ys)


def ellipse_box(x: float, y: float, wide: float, high: float, degrees: float) -> Edges:
    """The upright box around an ellipse of this centre and these radii that is turned."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across, down = math.hypot(wide * cos, high * sin), math.hypot(wide * sin, high * cos)
    return x - across, y - down, x + across, y + down


def note_converted(origin: str, kinds: Mapping[str, int], problems: Problems) -> None:
    """Note how many shapes of other kinds became boxes."""
    for kind, count in sorted(kinds.items()):
        if count:
            problems.note(f"{origin}: {count} {kind}: the upright box around each is taken")


def _has_area(box: Edges) -> bool:
    """Whether a box has area still in float32 and with the decimals that copies of labels keep."""
    if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
        return True  # no image is so wide that this would vanish
    x0, y0, x1, y1 = (round(float(np.float32(edge)), DECIMALS) for edge in box)
    return x1 > x0 and y1 > y0
