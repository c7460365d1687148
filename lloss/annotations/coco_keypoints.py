"""COCO's persons: annotations of an object with keypoints.

Keypoints are x, y, v by v: 0 not annotated, 1 hidden, 2 visible. They are numbers of pixels from 0,
so that the centre of the first pixel, 0.5 here, is their 0; boxes are edges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lloss.annotations.coco import CocoImage, box_of, is_set, listed, open_coco
from lloss.annotations.json_fields import BrokenError, field, leaving_out, number, numbers
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import (
    Person,
    boxed,
    check_pixels,
    far_away,
    far_joint,
    person_id,
)
from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.images.crop_box import CropBox
from lloss.text.clean_names import clean_name


def read_keypoints(document: Any, name: str, problems: Problems) -> Iterator[Person]:
    """The persons of a file, in its order; crowds are none.

    Args:
        document: the JSON.
        name: of the file, for messages.
        problems: broken images, and annotations without an image or a box, go there.

    Raises:
        LabelError: a part is missing, or two categories have other joints than each other.
    """
    file = open_coco(document, name, problems)
    joints = {id: _names(entry, name) for id, entry in file.categories.items()}
    sets = set(filter(None, joints.values()))
    if len(sets) > 1:
        raise LabelError(f"{name}: its categories have different keypoints; give one of them")
    for place, entry in enumerate(listed(document, "annotations", name)):
        where = f"{name}: annotations[{place}]"
        with leaving_out(problems):
            image = file.image_of(entry, where)
            file.category_of(entry, where)
            names = joints[entry["category_id"]]
            if image is None or (sets and not names) or is_set(entry, "iscrowd", where):
                continue
            box = box_of(entry, where)
            region = functools.partial(boxed, box, image.size, f"{where}.bbox")
            id = person_id(image.name, *box)
            label = functools.partial(_label, entry, where, image, names, region)
            yield Person(
                where, f"{image.where}.file_name", image.name, id, region, label, image.size
            )


def _names(category: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The joints of a category; none where it has no keypoints."""
    written = category.get("keypoints") or ()
    written = written if isinstance(written, list | tuple) else [written]
    names = [clean_name(one) if isinstance(one, str) else "" for one in written]
    if not all(names):
        raise LabelError(f"{name}: the keypoints of {category['name']!r} are no list of names")
    if len(set(names)) < len(names):
        raise LabelError(f"{name}: two keypoints of {category['name']!r} have one name: {written}")
    return tuple(names)


def _label(
    entry: Mapping[str, Any],
    where: str,
    image: CocoImage,
    names: tuple[str, ...],
    region: Callable[[], CropBox],
) -> PersonLabel | None:
    if not names or "keypoints" not in entry:
        return None
    if "num_keypoints" in entry and not number(entry["num_keypoints"], f"{where}.num_keypoints"):
        return None
    key = f"{where}.keypoints"
    size, values = image.size, field(entry, "keypoints", where)
    if not isinstance(values, list) or len(values) != 3 * len(names):
        many = f"{len(values)} numbers" if isinstance(values, list) else repr(values)
        raise BrokenError(key, f"{many}; {len(names)} joints take {3 * len(names)}")
    table = np.array(numbers(values, len(values), key), np.float64).reshape(-1, 3)
    annotated = table[:, 2] > 0
    if not annotated.any():
        return None
    check_pixels(table[:, :2], annotated, key)
    far = far_joint(table[:, :2], annotated, size) if size else None
    if size and far is not None:
        what = far_away(names[far], table[far].tolist(), size)
        raise BrokenError(f"{key}[{3 * far}]", what)
    joints = (table[:, :2] + 0.5).astype(np.float32)
    return PersonLabel(image.name, region(), names, joints, annotated)
