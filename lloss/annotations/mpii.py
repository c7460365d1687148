"""MPII's persons, in the two dialects of JSON in use.

::

    {"img_paths", "objpos": [x, y], "scale_provided", "joint_self": [[x, y, visible], ...], ...}
    {"image", "center": [x, y], "scale", "joints": [[x, y], ...], "joints_vis": [1, ...]}

The list of entries is the whole file. Coordinates are 1-based pixels. An entry may lack the joints,
and may have a ``box`` (x, y, width, height, as edges) in place of centre and scale.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lloss.annotations.joint_names import MPII
from lloss.annotations.json_fields import (
    Box,
    Coordinate,
    FileName,
    PixelCount,
    Point,
    convert,
    image_size,
)
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import (
    Person,
    box_region,
    check_joints,
    check_pixels,
    person_id,
    square_region,
)
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.images.crop_box import CropBox

SHIFT = 0.5 - 1.0
"""From MPII's coordinates to those here: MPII calls the centre of the first pixel 1."""

HEIGHT = 200.0
"""Pixels of a person of scale 1."""

HEAD_SHARE = 0.6
"""Of the diagonal of the head's box: the head's size (MPII's ``SC_BIAS``)."""

ABSENT = ((0.0, 0.0), (-1.0, -1.0))
"""Coordinates of a joint that is not annotated, in the dialect without a flag for it."""

SPLITS = {"train": False, "valid": True}
"""The parts of a file by the value of ``isValidation``."""

NECK, HEAD = MPII.index("upper-neck"), MPII.index("head-top")

_OfJoints = msgspec.Meta(min_length=len(MPII), max_length=len(MPII))


class _Place(msgspec.Struct):
    """Where the person is; of two fields of one meaning the file has one."""

    image: FileName | None = None
    img_paths: FileName | None = None
    img_height: PixelCount | None = None
    img_width: PixelCount | None = None
    center: Point | None = None
    objpos: Point | None = None
    scale: Coordinate | None = None
    scale_provided: Coordinate | None = None
    box: Box | None = None
    bbox: Box | None = None


class _Joints(msgspec.Struct):
    joints: Annotated[list[Point], _OfJoints] | None = None
    joints_vis: Annotated[list[Coordinate], _OfJoints] | None = None
    joint_self: Annotated[list[tuple[Coordinate, Coordinate, Coordinate]], _OfJoints] | None = None
    head_size: Coordinate | None = None
    head_box: Box | None = None
    headbox: Box | None = None


class _Split(msgspec.Struct):
    isValidation: bool | Coordinate  # noqa: N815  the file's own name


def parse_mpii(
    document: Sequence[Any], name: str, problems: Problems, split: str = ""
) -> Iterator[Person]:
    """Read the persons of a file, in its order; those of a ``split``, by ``isValidation``."""
    if split and split not in SPLITS:
        raise LabelError(f"split {split!r}: an MPII file has {' and '.join(SPLITS)}")
    for index, entry in enumerate(document):
        where = f"{name}: [{index}]"
        with problems.skipping():
            if split and bool(convert(entry, _Split, where).isValidation) != SPLITS[split]:
                continue
            yield _person(entry, where)


def _person(entry: Any, where: str) -> Person:
    place = convert(entry, _Place, where)
    key, image = _first(place, where, "image", "img_paths")
    size = image_size(place.img_height, place.img_width)
    numbers, region = _region(place, size, where)
    label = functools.partial(_label, entry, where, image, region, size)
    return Person(where, f"{where}.{key}", image, person_id(image, *numbers), region, label)


def _first(record: msgspec.Struct, where: str, *keys: str) -> tuple[str, Any]:
    """The first of these fields that the entry has."""
    for key in keys:
        if (value := getattr(record, key)) is not None:
            return key, value
    raise AnnotationError(where, f"lacks the key {keys[0]!r}")


def _region(
    place: _Place, size: tuple[int, int] | None, where: str
) -> tuple[Sequence[float], Callable[[], CropBox]]:
    """The numbers that say where the person is, and what makes a region of them."""
    if (place.box or place.bbox) and not (place.center or place.objpos):
        key, box = _first(place, where, "box", "bbox")
        return box, functools.partial(box_region, box, size, f"{where}.{key}")
    _, (x, y) = _first(place, where, "center", "objpos")
    key, scale = _first(place, where, "scale", "scale_provided")
    return (x, y, scale), functools.partial(_around, x, y, scale, size, f"{where}.{key}")


def _around(x: float, y: float, scale: float, size: tuple[int, int] | None, where: str) -> CropBox:
    if x != -1:  # the centre is the chest's, the person reaches farther down
        y, scale = y + 15 * scale, scale * 1.25
    return square_region(x + SHIFT, y + SHIFT, HEIGHT * scale, size, where)


def _label(
    entry: Any,
    where: str,
    image: str,
    region: Callable[[], CropBox],
    size: tuple[int, int] | None,
) -> PersonLabel | None:
    record = convert(entry, _Joints, where)
    if record.joints is None and record.joint_self is None:
        return None
    key, points, annotated = _points(record, where)
    if not annotated.any():
        return None
    check_pixels(points, annotated, f"{where}.{key}")
    if size:
        check_joints(MPII, points, annotated, size, f"{where}.{key}", "[{}]".format)
    joints = points + SHIFT
    head = _head_size(record, where)
    if math.isnan(head) and annotated[NECK] and annotated[HEAD]:
        head = math.dist(joints[NECK], joints[HEAD]) or math.nan
    return PersonLabel(image, region(), MPII, joints.astype(np.float32), annotated, head)


def _points(record: _Joints, where: str) -> tuple[str, NDArray[np.float64], NDArray[np.bool_]]:
    """The joints' field, their coordinates as in the file, [16, 2], and which are annotated."""
    if record.joints is not None:
        _, flags = _first(record, where, "joints_vis")
        return "joints", np.array(record.joints, np.float64), np.array(flags, np.float64) > 0
    table = record.joint_self or []
    # The third number is 0 for a joint that is hidden too, but its place is annotated.
    annotated = np.array([row[:2] not in ABSENT for row in table])
    return "joint_self", np.array(table, np.float64)[:, :2], annotated


def _head_size(record: _Joints, where: str) -> float:
    """The head's size of an entry; NaN where it has none.

    PCKh is defined by the head's box. The distance between the joints is an estimate: in LSP
    extended it equals :data:`HEAD_SHARE` of the diagonal of the boxes made for its persons.
    """
    for key in ("headbox", "head_box"):
        if (box := getattr(record, key)) is not None:
            x0, y0, x1, y1 = box
            if not (x1 > x0 and y1 > y0):
                shown = f"{x0:g}, {y0:g}, {x1:g}, {y1:g} (edges)"
                raise AnnotationError(f"{where}.{key}", f"the head's box {shown} has no area")
            return HEAD_SHARE * math.hypot(x1 - x0, y1 - y0)
    size = record.head_size
    if size is not None and size <= 0:
        raise AnnotationError(f"{where}.head_size", f"a head of {size:g} pixels")
    return math.nan if size is None else size
