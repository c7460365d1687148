"""Regions of Label Studio's annotations: boxes of objects, and keypoints of a person.

Numbers are per cents of the image, and degrees clockwise: a rectangle turns around its upper left
corner, an ellipse around its centre.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import numpy as np

from lloss.annotations.boxes import (
    BoxedObject,
    Edges,
    ListedImage,
    box_around,
    check_box,
    check_turned_box,
    ellipse_box,
    usable_images,
)
from lloss.annotations.json_fields import FARTHEST, Coordinate, Name, Point, convert
from lloss.annotations.label_studio import NameOf, Placed, read_annotations
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import Person
from lloss.annotations.problems import AnnotationError, Problems
from lloss.images.crop_box import CropBox

_NOT_REGIONS = frozenset(
    {"choices", "datetime", "number", "pairwise", "ranker", "rating", "relation", "taxonomy",
     "textarea"}
)  # fmt: skip
"""Types of results that describe an image or a region, and are not regions."""

KEYPOINT = "keypointlabels"


class _Rectangle(msgspec.Struct):
    x: Coordinate
    y: Coordinate
    width: Coordinate
    height: Coordinate
    rotation: Coordinate = 0

    def edges(self, across: float, down: float) -> Edges:
        """The upright box around it; ``across`` and ``down`` are a per cent in pixels."""
        width, height, angle = self.width * across, self.height * down, math.radians(self.rotation)
        cos, sin = math.cos(angle), math.sin(angle)
        corners = [(x, y) for x in (0.0, width) for y in (0.0, height)]
        box = box_around([(x * cos - y * sin, x * sin + y * cos) for x, y in corners])
        left, top = self.x * across, self.y * down
        return left + box[0], top + box[1], left + box[2], top + box[3]


class _Ellipse(msgspec.Struct):
    x: Coordinate
    y: Coordinate
    radiusX: Coordinate  # noqa: N815
    radiusY: Coordinate  # noqa: N815
    rotation: Coordinate = 0

    def edges(self, across: float, down: float) -> Edges:
        """See :meth:`_Rectangle.edges`."""
        wide, high = self.radiusX * across, self.radiusY * down
        return ellipse_box(self.x * across, self.y * down, wide, high, self.rotation)


class _Polygon(msgspec.Struct):
    points: Annotated[list[Point], msgspec.Meta(min_length=3)]
    rotation: Coordinate = 0

    def edges(self, across: float, down: float) -> Edges:
        """See :meth:`_Rectangle.edges`."""
        return box_around([(x * across, y * down) for x, y in self.points])


class _Keypoint(msgspec.Struct):
    x: Coordinate
    y: Coordinate


_SHAPES: dict[str, type[_Rectangle | _Ellipse | _Polygon]] = {
    "rectanglelabels": _Rectangle,
    "ellipselabels": _Ellipse,
    "polygonlabels": _Polygon,
}

BOXES = frozenset(_SHAPES)
"""Types of results that are objects."""

_Length = Annotated[float, msgspec.Meta(ge=1, le=FARTHEST, multiple_of=1)]


class _Region(msgspec.Struct):
    original_width: _Length
    original_height: _Length
    value: dict[str, Any]
    image_rotation: Coordinate | None = None


def region_types(document: Any) -> set[str]:
    """The types of the results of an export."""
    tasks = [task for task in document if isinstance(task, dict)]
    lists = [task.get("annotations") for task in tasks]
    annotations = [one for some in lists if isinstance(some, list) for one in some]
    results = [one.get("result") for one in annotations if isinstance(one, dict)]
    items = [item for some in results if isinstance(some, list) for item in some]
    return {str(item.get("type")) for item in items if isinstance(item, dict)}


def parse_regions(
    document: Any, origin: str, problems: Problems, name_of: NameOf | None = None
) -> list[ListedImage]:
    """Read the annotated images with their boxes, without those of a broken one.

    Of a turned box, an ellipse or a polygon the upright box around it is taken; notes count those.
    A region of another type is broken: an image must not seem to show less than was annotated.
    """
    images: list[ListedImage] = []
    converted = Counter[str]()
    for name, some in read_annotations(document, origin, problems, name_of).items():
        image = ListedImage(some[-1].where, name, None)
        for where, item in _regions(some[-1]):
            with image.objects.skipping(problems):
                kind = item.get("type") if isinstance(item, dict) else None
                if kind not in BOXES:
                    known = ", ".join(sorted(BOXES))
                    raise AnnotationError(where, f"is of the type {kind!r}; objects are {known}")
                region = _region(item, image, where)
                shape = convert(region.value, _SHAPES[kind], f"{where}.value")
                edges = shape.edges(region.original_width / 100, region.original_height / 100)
                turned = shape.rotation % 360 != 0 or kind == "ellipselabels"
                check = check_turned_box if turned else _check
                box = check(edges, image.size, where)
                image.objects.objects.append(BoxedObject(_class_of(region, kind, where), box))
                what = "turned boxes" if kind == "rectanglelabels" else kind.replace("label", "")
                converted[what] += turned or kind == "polygonlabels"
        images.append(image)
    for what, count in sorted(converted.items()):
        if count:
            problems.note(f"{origin}: {count} {what}: the upright box around each is taken")
    return usable_images(images, origin, problems)


def parse_keypoints(document: Any, origin: str, problems: Problems) -> Iterator[Person]:
    """Read the keypoints of images that show one person each; joints are in alphabetical order."""
    people: list[tuple[ListedImage, dict[str, tuple[float, float]]]] = []
    for name, some in read_annotations(document, origin, problems).items():
        image = ListedImage(some[-1].where, name, None)
        with problems.skipping(origin, name):
            people.append((image, _keypoints(some[-1], image)))
    names = tuple(sorted({joint for _, joints in people for joint in joints}))
    for image, joints in people:
        yield _person(image, joints, names)


def _keypoints(placed: Placed, image: ListedImage) -> dict[str, tuple[float, float]]:
    joints: dict[str, tuple[float, float]] = {}
    for where, item in _regions(placed):
        if not isinstance(item, dict) or item.get("type") != KEYPOINT:
            continue
        region = _region(item, image, where)
        point = convert(region.value, _Keypoint, f"{where}.value")
        joint = _class_of(region, KEYPOINT, where)
        if joint in joints:
            what = f"a second keypoint is called {joint!r}; an image is to show one person"
            raise AnnotationError(where, what)
        joints[joint] = (
            point.x * region.original_width / 100,
            point.y * region.original_height / 100,
        )
    return joints


def _person(
    image: ListedImage, joints: dict[str, tuple[float, float]], names: tuple[str, ...]
) -> Person:
    def region() -> CropBox:
        raise AnnotationError(
            image.where, "says not where the person is; give the folder of images"
        )

    def label() -> PersonLabel | None:
        places = np.array([joints.get(name, (0.0, 0.0)) for name in names], np.float32)
        annotated = np.array([name in joints for name in names], np.bool_)
        if not joints:
            return None
        return PersonLabel(image.name, None, names, places.reshape(-1, 2), annotated)

    return Person(image.where, image.where, image.name, image.name, region, label, image.size)


def _regions(placed: Placed) -> Iterator[tuple[str, Any]]:
    """Place and fields of what is marked on the image."""
    for index, item in enumerate(placed.annotation.result):
        if not isinstance(item, dict) or item.get("type") not in _NOT_REGIONS:
            yield f"{placed.where}.result[{index}]", item


def _region(item: Any, image: ListedImage, where: str) -> _Region:
    """Check a region, and give its image the size that it was drawn on."""
    region = convert(item, _Region, where)
    if region.image_rotation:
        what = f"the image was turned by {region.image_rotation:g}° in Label Studio"
        raise AnnotationError(where, f"{what}; label it upright")
    size = int(region.original_height), int(region.original_width)
    if (image.size or size) != size:
        what = f"another region has the image's size {image.size}, this one {size}"
        raise AnnotationError(where, f"{what} (height, width)")
    image.size = size
    return region


def _class_of(region: _Region, kind: str, where: str) -> str:
    names = convert(region.value.get(kind), list[Name], f"{where}.value.{kind}")
    if len(names) != 1:
        raise AnnotationError(f"{where}.value.{kind}", f"{len(names)} classes; give it one")
    return str(names[0])


def _check(edges: Edges, size: tuple[int, int] | None, where: str) -> Edges:
    return check_box(edges, size, where, edges, "edges")
