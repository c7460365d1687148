"""Boxes of objects, and keypoints of a person, in Label Studio's annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from lloss.annotations.boxes import (
    BoxedObject,
    Edges,
    ListedImage,
    check_box,
    check_turned_box,
    note_converted,
    usable_images,
)
from lloss.annotations.json_fields import Coordinate, convert
from lloss.annotations.label_studio import NameOf, Placed, read_annotations
from lloss.annotations.label_studio_regions import (
    Ellipse,
    Polygon,
    Rectangle,
    class_of,
    regions_of,
    sized_region,
)
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import Person
from lloss.annotations.problems import AnnotationError, Problems
from lloss.images.crop_box import CropBox

KEYPOINT = "keypointlabels"

_SHAPES: dict[str, type[Rectangle | Ellipse | Polygon]] = {
    "rectanglelabels": Rectangle,
    "ellipselabels": Ellipse,
    "polygonlabels": Polygon,
}

BOXES = frozenset(_SHAPES)
"""Types of results that are objects."""


class _Keypoint(msgspec.Struct):
    x: Coordinate
    y: Coordinate


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
        for where, kind, item in regions_of(some[-1]):
            with image.objects.skipping(problems):
                if kind not in BOXES:
                    known = ", ".join(sorted(BOXES))
                    raise AnnotationError(where, f"is of the type {kind!r}; objects are {known}")
                region = sized_region(item, image, where)
                shape = convert(region.value, _SHAPES[kind], f"{where}.value")
                edges = shape.edges(region.original_width / 100, region.original_height / 100)
                turned = shape.rotation % 360 != 0 or kind == "ellipselabels"
                check = check_turned_box if turned else _check
                box = check(edges, image.size, where)
                image.objects.objects.append(BoxedObject(class_of(region, kind, where), box))
                what = "turned boxes" if kind == "rectanglelabels" else kind.replace("label", "")
                converted[what] += turned or kind == "polygonlabels"
        images.append(image)
    note_converted(origin, converted, problems)
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
    for where, kind, item in regions_of(placed):
        if kind != KEYPOINT:
            continue
        region = sized_region(item, image, where)
        point = convert(region.value, _Keypoint, f"{where}.value")
        joint = class_of(region, KEYPOINT, where)
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


def _check(edges: Edges, size: tuple[int, int] | None, where: str) -> Edges:
    return check_box(edges, size, where, edges, "edges")
