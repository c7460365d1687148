"""COCO's persons: annotations of an object with keypoints.

Keypoints are x, y, v by v: 0 not annotated, 1 hidden, 2 visible. They are numbers of pixels from 0,
so that the centre of the first pixel, 0.5 here, is their 0; boxes are edges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from lloss.annotations.boxes import ListedImage
from lloss.annotations.coco import Annotation, Category, entries, note_scored, open_coco
from lloss.annotations.json_fields import Coordinate, Name, convert
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import (
    Person,
    box_region,
    check_joints,
    check_pixels,
    person_id,
)
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.images.crop_box import CropBox


class _Category(Category):
    keypoints: list[Name] | None = None


class _Keypoints(msgspec.Struct):
    keypoints: list[Coordinate]


class _PoolId(msgspec.Struct):
    lloss_id: str | None = None  # of the person in the pool, in a list of picks


def parse_keypoints(document: Any, name: str, problems: Problems) -> Iterator[Person]:
    """Read the persons of a file, in its order, without crowds.

    Refuse the file where two joints of a category have one name, or categories have different
    joints.
    """
    file = open_coco(document, name, _Category)
    joints = {id: tuple(map(str, one.keypoints or ())) for id, one in file.categories.items()}
    for number, names in joints.items():
        if len(set(names)) < len(names):
            of = file.categories[number].name
            raise LabelError(f"{name}: two keypoints of {str(of)!r} have one name: {list(names)}")
    sets = set(filter(None, joints.values()))
    if len(sets) > 1:
        raise LabelError(f"{name}: its categories have different keypoints; give one of them")
    listed = entries(document, "annotations", name)
    note_scored(listed, name, problems)
    for index, entry in enumerate(listed):
        where = f"{name}: annotations[{index}]"
        with problems.skipping():
            annotation = convert(entry, Annotation, where)
            image = file.find_image(annotation.image_id, where)
            file.find_category(annotation.category_id, where)
            names = joints[annotation.category_id]
            if (sets and not names) or annotation.iscrowd:
                continue
            box = annotation.bbox
            region = functools.partial(box_region, box, image.size, f"{where}.bbox")
            label = functools.partial(_label, entry, where, image, names, region)
            id = convert(entry, _PoolId, where).lloss_id or person_id(image.name, *box)
            yield Person(
                where, f"{image.where}.file_name", image.name, id, region, label, image.size
            )


def _label(
    entry: Any,
    where: str,
    image: ListedImage,
    names: tuple[str, ...],
    region: Callable[[], CropBox],
) -> PersonLabel | None:
    if not names or "keypoints" not in entry:
        return None
    place, values = f"{where}.keypoints", convert(entry, _Keypoints, where).keypoints
    if len(values) != 3 * len(names):
        what = f"{len(values)} numbers; {len(names)} joints take {3 * len(names)}"
        raise AnnotationError(place, what)
    table = np.array(values, np.float64).reshape(-1, 3)
    points, annotated = table[:, :2], table[:, 2] > 0
    if not annotated.any():
        return None
    check_pixels(points, annotated, place)
    if image.size:
        check_joints(names, points, annotated, image.size, place)
    joints = (points + 0.5).astype(np.float32)
    return PersonLabel(image.name, region(), names, joints, annotated)
