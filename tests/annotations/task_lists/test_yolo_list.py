from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.annotations.task_lists.task_list import TaskList
from lloss.annotations.task_lists.yolo_list import write_yolo
from lloss.data.object_labels import open_objects, read_objects
from lloss.data.pose_labels import read_persons
from lloss.errors import LlossError, SettingsError

from .lists import JOINTS, SIZE, image, objects, persons, pixels


def test_objects_come_back(tmp_path: Path) -> None:
    write_yolo(objects(), tmp_path / "tasks")
    problems = Problems()
    labels = read_objects(tmp_path / "tasks" / "data.yaml", problems)
    # An image that was not looked at has no label; one without objects has an empty one.
    assert sorted(labels) == ["images/train/a/1.png", "images/train/a/2.png"]
    label = labels["images/train/a/1.png"]
    assert label.names == ("dog", "cat")
    shares = np.array([SIZE[1], SIZE[0]] * 2)
    assert label.boxes * shares == pytest.approx(
        np.array([[10, 5, 30.5, 25], [40, 0, 80, 60]]), abs=1e-3
    )
    assert labels["images/train/a/2.png"].empty
    # As a data set with its images.
    labeled = open_objects(str(tmp_path / "tasks"), problems)
    assert len(labeled) == 3
    with Image.open(tmp_path / "tasks/images/train/a/1.png") as copy:
        assert (np.asarray(copy) == pixels()).all()


def test_persons_come_back(tmp_path: Path) -> None:
    tasks = persons()
    write_yolo(tasks, tmp_path / "tasks")
    labels = list(read_persons(tmp_path / "tasks" / "data.yaml", Problems()).values())
    (listed,) = tasks.images
    for pick, label in zip(listed.picks, labels, strict=True):
        assert pick.prediction is not None
        given: Any = pick.prediction.label
        assert label.names == JOINTS
        assert label.annotated.tolist() == given.annotated.tolist()
        found = label.joints[label.annotated]
        assert found == pytest.approx(given.joints[given.annotated], abs=1e-3)
    assert "flip_idx" in (tmp_path / "tasks" / "data.yaml").read_text()


def test_images_that_are_files_are_linked_or_copied(tmp_path: Path) -> None:
    source = tmp_path / "pool" / "1.png"
    source.parent.mkdir()
    Image.fromarray(pixels()).save(source)
    tasks = TaskList([image("1.png", None, source=str(source))], "detection", ("cat",), "")
    write_yolo(tasks, tmp_path / "linked")
    assert (tmp_path / "linked/images/train/1.png").readlink() == source
    write_yolo(tasks, tmp_path / "copied", copy=True)
    assert not (tmp_path / "copied/images/train/1.png").is_symlink()


def test_nothing_is_left_of_a_list_that_fails(tmp_path: Path) -> None:
    tasks = TaskList([image("1.png", None), image("1.jpg", None)], "detection", ("cat",), "")
    with pytest.raises(SettingsError, match=r"'1\.png' and '1\.jpg' would share the label file"):
        write_yolo(tasks, tmp_path / "tasks")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    write_yolo(objects(), tmp_path / "tasks")  # an empty one is filled
    before = sorted((tmp_path / "tasks").rglob("*"))
    with pytest.raises(LlossError, match="exists already; remove it, or choose another name"):
        write_yolo(objects(), tmp_path / "tasks")
    assert sorted((tmp_path / "tasks").rglob("*")) == before


def test_a_folder_called_images_in_an_id_keeps_its_label(tmp_path: Path) -> None:
    tasks = objects()
    first, *_ = tasks.images
    renamed = image("cam/images/1.png", first.picks[0].prediction)
    write_yolo(TaskList([renamed], "detection", tasks.classes, ""), tmp_path / "tasks")
    labels = read_objects(tmp_path / "tasks" / "data.yaml", Problems())
    assert [label.names for label in labels.values()] == [("dog", "cat")]
