"""YOLO's persons: rows of a box and its keypoints, ``x y`` or ``x y visibility`` of each.

All but visibility (0: not annotated) are shares of the image's width and height. Without
visibility, a keypoint at 0 0 is not annotated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lloss.annotations.joint_names import COCO
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.number_text import parse_number
from lloss.annotations.person_record import Person, box_region, person_id
from lloss.annotations.problems import AnnotationError, Problems
from lloss.annotations.yolo import YoloConfig, check_shares, text_rows
from lloss.errors import LabelError
from lloss.images.crop_box import CropBox
from lloss.text.clean_names import clean_name


def joints_of(config: YoloConfig) -> tuple[str, ...]:
    """The names of the keypoints: ``kpt_names``, or COCO's where they are as many.

    Refuse other data sets: without names nobody knows which joints change places in the mirror.
    """
    if not config.shape:
        raise LabelError(f"{config.path}: lacks kpt_shape, so that its rows have no keypoints")
    count = config.shape[0]
    written = config.fields.get("kpt_names")
    lists = list(written.values()) if isinstance(written, dict) else [written]
    if written and all(one == lists[0] for one in lists) and isinstance(lists[0], list):
        names = tuple(clean_name(str(name)) for name in lists[0])
        if len(set(names)) == count == len(names):
            return names
    if written or count != len(COCO):
        example = "kpt_names: {0: [nose, left_eye, right_eye]}"
        raise LabelError(f"{config.path}: needs the names of its {count} keypoints ({example})")
    return COCO


def parse_rows(
    data: bytes,
    path: Path,
    config: YoloConfig,
    image: str,
    size: tuple[int, int],
    problems: Problems,
) -> Iterator[Person]:
    """Read the persons of a file, whose image has this height and width."""
    joints = joints_of(config)
    height, width = size
    for where, words in text_rows(data, path):
        with problems.skipping():
            values = [parse_number(word, where) for word in words]
            if len(values) not in (5, 5 + config.keypoints):
                what = f"{len(values)} numbers; a person takes {5 + config.keypoints}"
                raise AnnotationError(where, what)
            x, y, across, down = check_shares(values[1:5], where)
            across, down = across * width, down * height
            box = (x * width - across / 2, y * height - down / 2, across, down)
            region = functools.partial(box_region, box, size, where)
            label = functools.partial(
                _label, values[5:], where, image, size, joints, config, region
            )
            yield Person(where, where, image, person_id(image, *box), region, label, size)


def _label(
    values: Sequence[float],
    where: str,
    image: str,
    size: tuple[int, int],
    names: tuple[str, ...],
    config: YoloConfig,
    region: Callable[[], CropBox],
) -> PersonLabel | None:
    if not values or not config.shape:
        return None
    table = np.array(values).reshape(config.shape)
    annotated = table[:, 2] > 0 if table.shape[1] == 3 else (table != 0).any(1)
    if not annotated.any():
        return None
    check_shares(table[annotated, :2].ravel().tolist(), where)
    joints = table[:, :2] * size[::-1]
    return PersonLabel(image, region(), names, joints.astype(np.float32), annotated)
