"""MPII's persons, in the two dialects of JSON that are about.

::

    {"img_paths", "objpos": [x, y], "scale_provided", "joint_self": [[x, y, visible], ...], ...}
    {"image", "center": [x, y], "scale", "joints": [[x, y], ...], "joints_vis": [1, ...]}

The list of entries is the whole file. Coordinates are 1-based pixels. An entry may lack the joints,
and may have a ``box`` (x, y, width, height, as edges) in place of centre and scale.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations.joint_names import MPII
from lloss.annotations.json_fields import (
    BrokenError,
    field,
    leaving_out,
    number,
    numbers,
    side_of,
    text,
)
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import (
    Person,
    boxed,
    check_pixels,
    far_away,
    far_joint,
    person_id,
    square,
)
from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.images.crop_box import CropBox

FIRST = 1.0
"""What MPII calls the first pixel, whose centre is 0.5 here."""

SHIFT = 0.5 - FIRST

HEIGHT = 200.0
"""Pixels of a person of scale 1."""

HEAD_SHARE = 0.6
"""Of the diagonal of the head's box: the head's size (MPII's ``SC_BIAS``)."""

ABSENT = ((0.0, 0.0), (-1.0, -1.0))
"""What stands for a joint that is not annotated where only the coordinates tell."""

SPLITS = {"train": False, "valid": True}
"""The parts that ``isValidation`` tells apart."""

NECK, HEAD = MPII.index("upper-neck"), MPII.index("head-top")


def read_mpii(
    document: Sequence[Any],
    name: str,
    problems: Problems,
    split: str = "",
    heads: Sequence[float] | None = None,
) -> Iterator[Person]:
    """The persons of a file, in its order.

    Args:
        document: its list.
        name: of the file, for messages.
        problems: entries without an image or a place go there.
        split: ``train`` or ``valid``, where ``isValidation`` tells; "" for all.
        heads: the head's size of each entry, where a file beside this one tells them.
    """
    for place, entry in enumerate(document):
        where = f"{name}: [{place}]"
        with leaving_out(problems):
            if not split or _is_in(split, entry, where):
                yield _person(entry, where, heads[place] if heads else math.nan)


def _is_in(split: str, entry: Any, where: str) -> bool:
    if split not in SPLITS:
        raise LabelError(f"split {split!r}: an MPII file has {' and '.join(SPLITS)}")
    flag = field(entry, "isValidation", where)
    return bool(flag is True or (flag and number(flag, f"{where}.isValidation"))) == SPLITS[split]


def _person(entry: Any, where: str, head: float) -> Person:
    key = _key(entry, where, "image", "img_paths")
    image = text(entry, key, where)
    place, region = _place(entry, where)
    label = functools.partial(_label, entry, where, image, region, head)
    return Person(where, f"{where}.{key}", image, person_id(image, *place), region, label)


def _place(entry: Mapping[str, Any], where: str) -> tuple[list[float], Callable[[], CropBox]]:
    """The numbers that an entry tells the person's place by, and what makes a region of them."""
    size = _size(entry, where)
    boxes = [name for name in ("box", "bbox") if name in entry]
    if boxes and not ({"center", "objpos"} & set(entry)):
        box = numbers(entry[boxes[0]], 4, f"{where}.{boxes[0]}")
        return box, functools.partial(boxed, box, size, f"{where}.{boxes[0]}")
    centre = _key(entry, where, "center", "objpos")
    scaled = _key(entry, where, "scale", "scale_provided")
    x, y = numbers(entry[centre], 2, f"{where}.{centre}")
    scale = number(entry[scaled], f"{where}.{scaled}")
    return [x, y, scale], functools.partial(_around, x, y, scale, size, f"{where}.{scaled}")


def _size(entry: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    """Height and width of the image where the entry tells them."""
    height, width = side_of(entry, "img_height", where), side_of(entry, "img_width", where)
    return (height, width) if height and width else None


def _around(x: float, y: float, scale: float, size: tuple[int, int] | None, where: str) -> CropBox:
    if x != -1:  # the centre is the chest's, the person reaches farther down
        y, scale = y + 15 * scale, scale * 1.25
    return square(x + SHIFT, y + SHIFT, HEIGHT * scale, size, where)


def _key(entry: Any, where: str, *names: str) -> str:
    """The first of these keys that an entry has."""
    key = next((n for n in names if isinstance(entry, Mapping) and n in entry), names[0])
    field(entry, key, where)
    return key


def _label(
    entry: Mapping[str, Any], where: str, image: str, region: Callable[[], CropBox], head: float
) -> PersonLabel | None:
    if "joints" not in entry and "joint_self" not in entry:
        return None
    key = _key(entry, where, "joints", "joint_self")
    joints, annotated = _joints(entry, key, where)
    if not annotated.any():
        return None
    check_pixels(joints - SHIFT, annotated, f"{where}.{key}")
    size = _size(entry, where)
    far = far_joint(joints, annotated, size) if size else None
    if size and far is not None:
        raise BrokenError(f"{where}.{key}[{far}]", far_away(MPII[far], entry[key][far], size))
    head = _head_of(entry, where, head, joints, annotated)
    return PersonLabel(image, region(), MPII, joints.astype(np.float32), annotated, head)


def _joints(
    entry: Mapping[str, Any], key: str, where: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Joints ``[16, 2]`` in this house's coordinates, and which are annotated."""
    rows = entry[key]
    if not isinstance(rows, list) or len(rows) != len(MPII):
        many = len(rows) if isinstance(rows, list) else repr(rows)
        raise BrokenError(f"{where}.{key}", f"{many} joints; MPII's are {len(MPII)}")
    width = 2 if key == "joints" else 3
    table = [numbers(row, width, f"{where}.{key}[{n}]") for n, row in enumerate(rows)]
    points = np.array([row[:2] for row in table], np.float64)
    if key == "joints":
        flags = numbers(field(entry, "joints_vis", where), len(MPII), f"{where}.joints_vis")
        annotated = np.array(flags) > 0
    else:
        # The third number is 0 for a joint that is hidden too, but its place is annotated.
        annotated = np.array([tuple(row[:2]) not in ABSENT for row in table])
    return points + SHIFT, annotated


def _head_of(
    entry: Mapping[str, Any],
    where: str,
    head: float,
    joints: NDArray[np.float64],
    annotated: NDArray[np.bool_],
) -> float:
    """The head's size: the entry's own, that of the file beside, or from the neck to the top.

    PCKh is defined by the head's box; the distance between the joints only stands in for it. In LSP
    extended, whose persons have no such boxes of their own, it equals :data:`HEAD_SHARE` of the
    diagonal of the boxes that were made for them; of other sets nothing is known.

    Raises:
        BrokenError: the size that is told is none.
    """
    told = where
    if entry.get("head_size") is not None:
        told = f"{where}.head_size"
        head = number(entry["head_size"], told)
    for key in ("head_box", "headbox"):
        if entry.get(key) is not None:
            x0, y0, x1, y1 = numbers(entry[key], 4, f"{where}.{key}")
            if not (x1 > x0 and y1 > y0):
                shown = f"{x0:g}, {y0:g}, {x1:g}, {y1:g} (edges)"
                raise BrokenError(f"{where}.{key}", f"the head's box {shown} has no area")
            head = HEAD_SHARE * math.hypot(x1 - x0, y1 - y0)
    if head <= 0:
        raise BrokenError(told, f"a head of {head:g} pixels")
    if math.isnan(head) and annotated[NECK] and annotated[HEAD]:
        head = math.dist(joints[NECK], joints[HEAD]) or math.nan
    return head
