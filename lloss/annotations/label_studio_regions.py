"""Regions of Label Studio's annotations, in per cents of the image and degrees clockwise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from lloss.annotations.boxes import Edges, ListedImage, box_around, ellipse_box
from lloss.annotations.json_fields import FARTHEST, Coordinate, Name, Point, convert
from lloss.annotations.label_studio import Placed
from lloss.annotations.problems import AnnotationError

_NOT_REGIONS = frozenset(
    {"choices", "datetime", "number", "pairwise", "ranker", "rating", "relation", "taxonomy",
     "textarea"}
)  # fmt: skip
"""Types of results that describe an image or a region, and are not regions."""


class Rectangle(msgspec.Struct):
    """It turns around its upper left corner."""

    x: Coordinate
    y: Coordinate
    width: Coordinate
    height: Coordinate
    rotation: Coordinate = 0

    def corners(self, across: float, down: float) -> list[Point]:
        """Its corners in pixels, in a circle; ``across`` and ``down`` are a per cent in pixels."""
        left, top, angle = self.x * across, self.y * down, math.radians(self.rotation)
        cos, sin = math.cos(angle), math.sin(angle)
        width, height = self.width * across, self.height * down
        flat = (0.0, 0.0), (width, 0.0), (width, height), (0.0, height)
        return [(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in flat]

    def edges(self, across: float, down: float) -> Edges:
        """The upright box around it in pixels."""
        return box_around(self.corners(across, down))


class Ellipse(msgspec.Struct):
    """It turns around its centre."""

    x: Coordinate
    y: Coordinate
    radiusX: Coordinate  # noqa: N815
    radiusY: Coordinate  # noqa: N815
    rotation: Coordinate = 0

    def edges(self, across: float, down: float) -> Edges:
        """The upright box around it in pixels."""
        wide, high = self.radiusX * across, self.radiusY * down
        return ellipse_box(self.x * across, self.y * down, wide, high, self.rotation)


class Polygon(msgspec.Struct):
    """Its corners."""

    points: Annotated[list[Point], msgspec.Meta(min_length=3)]
    rotation: Coordinate = 0

    def corners(self, across: float, down: float) -> list[Point]:
        """See :meth:`Rectangle.corners`."""
        return [(x * across, y * down) for x, y in self.points]

    def edges(self, across: float, down: float) -> Edges:
        """The upright box around it in pixels."""
        return box_around(self.corners(across, down))


_Length = Annotated[float, msgspec.Meta(ge=1, le=FARTHEST, multiple_of=1)]


class Region(msgspec.Struct):
    """What is marked on an image of this size."""

    original_width: _Length
    original_height: _Length
    value: dict[str, Any]
    image_rotation: Coordinate | None = None


def regions_of(placed: Placed) -> Iterator[tuple[str, str, Any]]:
    """Place, type and fields of what is marked on the image."""
    for index, item in enumerate(placed.annotation.result):
        kind = str(item.get("type")) if isinstance(item, dict) else ""
        if kind not in _NOT_REGIONS:
            yield f"{placed.where}.result[{index}]", kind, item


def sized_region(item: Any, image: ListedImage, where: str) -> Region:
    """Check a region, and give its image the size that it was drawn on."""
    region = convert(item, Region, where)
    if region.image_rotation:
        what = f"the image was turned by {region.image_rotation:g}° in Label Studio"
        raise AnnotationError(where, f"{what}; label it upright")
    size = int(region.original_height), int(region.original_width)
    if (image.size or size) != size:
        what = f"another region has the image's size {image.size}, this one {size}"
        raise AnnotationError(where, f"{what} (height, width)")
    image.size = size
    return region


def class_of(region: Region, kind: str, where: str) -> str:
    """The one class of a region of this type."""
    names = convert(region.value.get(kind), list[Name], f"{where}.value.{kind}")
    if len(names) != 1:
        raise AnnotationError(f"{where}.value.{kind}", f"{len(names)} classes; give it one")
    return str(names[0])
