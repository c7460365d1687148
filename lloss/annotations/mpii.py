"""MPII's persons, in the JSON that most pose estimators read: a list of entries.

::

    {"image", "center": [x, y], "scale", "joints": [[x, y], ...], "joints_vis": [1, ...]}

Coordinates are 1-based pixels. An entry may lack the joints, may have a ``box`` (x, y, width,
height, as edges) in place of centre and scale, and a ``head_box`` (x0, y0, x1, y1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from lloss.annotations.joint_names import MPII
from lloss.annotations.json_fields import Box, Coordinate, FileName, Point, convert
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import (
    Person,
    box_region,
    check_pixels,
    person_id,
    square_region,
)
from lloss.annotations.problems import AnnotationError, Problems
from lloss.images.crop_box import CropBox

SHIFT = 0.5 - 1.0
"""From MPII's coordinates to those here: MPII calls the centre of the first pixel 1."""

HEIGHT = 200.0  # Pixels of a person of scale 1

HEAD_SHARE = 0.6  # Of the diagonal of the head's box: the head's size (MPII's `SC_BIAS`)

NECK, HEAD = MPII.index("upper-neck"), MPII.index("head-top")

OTHER_DIALECT = {"img_paths", "objpos", "joint_self", "scale_provided", "headbox", "head_size"}
"""Keys of other JSON of MPII, which is refused: nothing of it would be read."""

PLACE = "center and scale (or box)"

_OfJoints = msgspec.Meta(min_length=len(MPII), max_length=len(MPII))


class _Entry(msgspec.Struct):
    image: FileName
    center: Point | None = None
    scale: Coordinate | None = None
    box: Box | None = None


class _Joints(msgspec.Struct):
    joints: Annotated[list[Point], _OfJoints] | None = None
    joints_vis: Annotated[list[Coordinate], _OfJoints] | None = None
    head_box: Box | None = None


def parse_mpii(document: Sequence[Any], name: str, problems: Problems) -> Iterator[Person]:
    """Read the persons of a file, in its order."""
    for index, entry in enumerate(document):
        with problems.skipping():
            yield _person(entry, f"{name}: [{index}]")


def _person(entry: Any, where: str) -> Person:
    if isinstance(entry, dict) and (other := sorted(OTHER_DIALECT & entry.keys())):
        keys = f"image, {PLACE}, joints, joints_vis, head_box"
        raise AnnotationError(where, f"the key {other[0]!r} is not read; write {keys}")
    record = convert(entry, _Entry, where)
    numbers, region = _region(record, where)
    label = functools.partial(_label, entry, where, record.image, region)
    id = person_id(record.image, *numbers)
    return Person(where, f"{where}.image", record.image, id, region, label)


def _region(record: _Entry, where: str) -> tuple[Sequence[float], Callable[[], CropBox]]:
    """The numbers that say where the person is, and what makes a region of them."""
    if record.box and not record.center:
        return record.box, functools.partial(box_region, record.box, None, f"{where}.box")
    for key in ("center", "scale"):
        if getattr(record, key) is None:
            raise AnnotationError(where, f"lacks the key {key!r}; write {PLACE}")
    assert record.center is not None and record.scale is not None
    numbers = *record.center, record.scale
    return numbers, functools.partial(_around, *numbers, f"{where}.scale")


def _around(x: float, y: float, scale: float, where: str) -> CropBox:
    if x != -1:  # the centre is the chest's, the person reaches farther down
        y, scale = y + 15 * scale, scale * 1.25
    return square_region(x + SHIFT, y + SHIFT, HEIGHT * scale, None, where)


def _label(entry: Any, where: str, image: str, region: Callable[[], CropBox]) -> PersonLabel | None:
    record = convert(entry, _Joints, where)
    if record.joints is None:
        return None
    if record.joints_vis is None:
        raise AnnotationError(where, "lacks the key 'joints_vis'")
    points = np.array(record.joints, np.float64)
    annotated = np.array(record.joints_vis, np.float64) > 0
    if not annotated.any():
        return None
    check_pixels(points, annotated, f"{where}.joints")
    joints = points + SHIFT
    if record.head_box is not None:
        head = _head_size(record.head_box, f"{where}.head_box")
    elif annotated[NECK] and annotated[HEAD]:
        # An estimate: in LSP extended it equals the share of the diagonal of its heads' boxes.
        head = math.dist(joints[NECK], joints[HEAD]) or math.nan
    else:
        head = math.nan
    return PersonLabel(image, region(), MPII, joints.astype(np.float32), annotated, head)


def _head_size(box: Box, where: str) -> float:
    """The size that PCKh divides by, of the head's box."""
    x0, y0, x1, y1 = box
    if not (x1 > x0 and y1 > y0):
        shown = f"{x0:g}, {y0:g}, {x1:g}, {y1:g} (edges)"
        raise AnnotationError(where, f"the head's box {shown} has no area")
    return HEAD_SHARE * math.hypot(x1 - x0, y1 - y0)
