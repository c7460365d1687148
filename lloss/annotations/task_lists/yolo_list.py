"""A task list as a data set of YOLO: a folder of images and labels, and ``data.yaml``.

::

    data.yaml                names of the classes, in the order of the model's outputs
    images/train/0001.jpg    links to the images, or copies
    labels/train/0001.txt    rows of a class and a box, or a person and its keypoints

Rows have no score: readers of labels refuse one. An image that no network looked at has no file of
labels; that of an image on which nothing was found is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from lloss.annotations.joint_names import flip_pairs
from lloss.annotations.task_lists.image_copies import copy_image
from lloss.annotations.task_lists.task_list import (
    PERSON,
    Mark,
    MarkedBox,
    MarkedPerson,
    TaskImage,
    TaskList,
    in_shares,
    marks_of,
)
from lloss.errors import SettingsError
from lloss.files import atomic_folder

TASKS = ("detection", "pose")
"""Tasks whose labels the format has."""


def write_yolo(tasks: TaskList, folder: Path, copy: bool = False) -> None:
    """Write the folder whole or not at all; with ``copy``, its images are not links."""
    owners: dict[str, str] = {}
    with atomic_folder(folder) as aside:
        for image in tasks.images:
            name = f"images/train/{image.name}"
            label = _label_file(name)
            other = owners.setdefault(label, image.name)
            if other != image.name:
                raise SettingsError(
                    f"the images {other!r} and {image.name!r} would share the label file {label}; "
                    "choose another format"
                )
            _place(image, aside / name, copy)
            if any(pick.prediction for pick in image.picks):
                _write(aside / label, _rows(image, tasks.classes))
        _write(aside / "data.yaml", [_config(tasks)])


def _label_file(image: str) -> str:
    """Readers look below ``labels`` instead of the last ``images``."""
    return "/labels/".join(f"/{image}".rsplit("/images/", 1)).rpartition(".")[0][1:] + ".txt"


def _place(image: TaskImage, path: Path, copy: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if copy or not image.source or "://" in image.source:
        copy_image(image, path)
    else:
        path.symlink_to(Path(image.source).absolute())


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _rows(image: TaskImage, classes: tuple[str, ...]) -> list[str]:
    height, width = image.size
    marks = (mark for pick in image.picks for mark in marks_of(pick))
    return [
        " ".join(str(in_shares(value)) for value in _numbers(mark, classes, width, height)) + "\n"
        for mark in marks
    ]


def _numbers(mark: Mark, classes: tuple[str, ...], width: int, height: int) -> Iterator[float]:
    if isinstance(mark, MarkedBox):
        x0, y0, x1, y1 = mark.edges
        yield classes.index(mark.name)
    elif isinstance(mark, MarkedPerson):
        x, y, across, down = mark.box
        x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + across, width), min(y + down, height)
        yield 0
    else:
        return
    yield from ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
    yield from ((x1 - x0) / width, (y1 - y0) / height)
    if isinstance(mark, MarkedPerson):
        found = {joint.name: (joint.x / width, joint.y / height, 2) for joint in mark.joints}
        for name in classes:
            yield from found.get(name, (0, 0, 0))


def _config(tasks: TaskList) -> str:
    # Both are required; the list has no images to measure on.
    content: dict[str, object] = {"train": "images/train", "val": "images/train"}
    if tasks.task == "pose" and tasks.classes:
        joints = list(tasks.classes)
        mirrored = list(range(len(joints)))
        for one, other in flip_pairs(joints):
            mirrored[one], mirrored[other] = other, one
        content |= {"kpt_shape": [len(joints), 3], "flip_idx": mirrored, "kpt_names": {0: joints}}
    names = (PERSON,) if tasks.task == "pose" else tasks.classes
    content["names"] = dict(enumerate(names))
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return text
