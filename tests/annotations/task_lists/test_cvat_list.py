from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.annotations.task_lists.cvat_list import write_cvat
from lloss.annotations.task_lists.task_list import TaskList
from lloss.data.class_labels import read_class_labels
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError

from .lists import SIZE, classes, image, mask, masks, objects, persons


def test_objects_come_back(tmp_path: Path) -> None:
    write_cvat(objects(), tmp_path / "tasks.xml")
    labels = read_objects(tmp_path / "tasks.xml", Problems())
    assert list(labels) == ["a/1.png", "a/2.png", "b.png"]
    assert labels["a/1.png"].names == ("dog", "cat") and labels["a/1.png"].size == SIZE
    assert labels["a/1.png"].boxes.tolist() == [[10, 5, 30.5, 25], [40, 0, 80, 60]]
    root = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == ["cat", "dog"]


def test_classes_come_back(tmp_path: Path) -> None:
    write_cvat(classes(), tmp_path / "tasks.xml")
    labels = read_class_labels(tmp_path / "tasks.xml", Problems())
    assert labels == {"1.png": "dog", "2.png": "cat"}


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path: Path) -> None:
    tasks = TaskList([image("a\x01.png", None)], "", (), "")
    with pytest.raises(LabelError, match=r"'a\\x01.png' has a control character in it"):
        write_cvat(tasks, tmp_path / "tasks.xml")
    assert not list(tmp_path.iterdir())


def test_masks_are_run_lengths_in_their_box(tmp_path: Path) -> None:
    write_cvat(masks(), tmp_path / "tasks.xml")
    found = list(ElementTree.parse(tmp_path / "tasks.xml").getroot().iter("mask"))
    assert [one.get("label") for one in found] == ["disc", "line"]
    for number, one in enumerate(found, 1):
        left, top, width, height = (
            int(one.get(key, "")) for key in ("left", "top", "width", "height")
        )
        flat: list[int] = []
        for run, length in enumerate(map(int, one.get("rle", "").split(", "))):
            flat += [run % 2] * length
        whole = np.zeros(SIZE, int)
        whole[top : top + height, left : left + width] = np.reshape(flat, (height, width))
        assert (whole == (mask() == number)).all()


def test_persons_are_skeletons_with_every_joint(tmp_path: Path) -> None:
    write_cvat(persons(), tmp_path / "tasks.xml")
    root = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    first, second = root.iter("skeleton")
    assert [point.get("points") for point in first] == ["20.5,12.0", "24.0,10.0", "17.0,10.25"]
    assert [point.get("outside") for point in first] == ["0", "0", "0"]
    assert [point.get("outside") for point in second] == ["0", "1", "0"]
    assert [point.get("label") for point in second] == ["nose", "left_eye", "right_eye"]
