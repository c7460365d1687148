from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.annotations.task_lists.coco_list import write_coco
from lloss.annotations.task_lists.task_list import TaskList
from lloss.data.object_labels import read_objects
from lloss.data.pose_labels import read_persons

from .lists import JOINTS, SIZE, classes, image, mask, masks, objects, persons


def written(tasks: TaskList, path: Path) -> dict[str, Any]:
    write_coco(tasks, path)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_objects_come_back_with_scores_and_the_models_numbers(tmp_path: Path) -> None:
    document = written(objects(), tmp_path / "tasks.json")
    assert document["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [one["score"] for one in document["annotations"]] == [0.9, 0.5]
    labels = read_objects(tmp_path / "tasks.json", Problems())
    assert list(labels) == ["a/1.png", "a/2.png", "b.png"]
    assert labels["a/1.png"].names == ("dog", "cat") and labels["a/1.png"].size == SIZE
    assert labels["a/1.png"].boxes.tolist() == [[10, 5, 30.5, 25], [40, 0, 80, 60]]
    assert labels["a/2.png"].empty


def test_persons_come_back_by_the_ids_of_their_pool(tmp_path: Path) -> None:
    tasks = persons()
    document = written(tasks, tmp_path / "tasks.json")
    assert document["categories"][0]["skeleton"] == [[1, 2], [1, 3]]
    assert [one["num_keypoints"] for one in document["annotations"]] == [3, 2]
    labels = read_persons(tmp_path / "tasks.json", Problems())
    (listed,) = tasks.images
    for pick in listed.picks:
        label = labels[pick.id]
        assert pick.prediction is not None
        given: Any = pick.prediction.label
        assert label.names == JOINTS and label.region == pick.region
        assert label.annotated.tolist() == given.annotated.tolist()
        assert label.joints[label.annotated] == pytest.approx(given.joints[given.annotated])


def test_masks_are_what_pycocotools_decodes(tmp_path: Path) -> None:
    api = pytest.importorskip("pycocotools.coco", reason="decodes the masks")
    written(masks(), tmp_path / "tasks.json")
    read = api.COCO(tmp_path / "tasks.json")
    found = {read.cats[one["category_id"]]["name"]: one for one in read.anns.values()}
    assert found.keys() == {"disc", "line"}
    for number, name in ((1, "disc"), (2, "line")):
        assert (read.annToMask(found[name]) == (mask() == number)).all()
        rows, columns = np.nonzero(mask() == number)
        left, top, width, height = found[name]["bbox"]
        assert (left, left + width) == (columns.min(), columns.max() + 1)
        assert (top, top + height) == (rows.min(), rows.max() + 1)
        assert found[name]["area"] == len(rows)


def test_the_class_of_an_image_is_an_annotation_without_a_box(tmp_path: Path) -> None:
    document = written(classes(), tmp_path / "tasks.json")
    assert document["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "score": 0.75},
        {"id": 2, "image_id": 2, "category_id": 1, "score": 0.5},
    ]


def test_images_alone_and_by_url(tmp_path: Path) -> None:
    tasks = TaskList([image("1.png", None, source="https://host/1.png")], "", (), "")
    document = written(tasks, tmp_path / "tasks.json")
    assert document["images"] == [
        {"id": 1, "file_name": "1.png", "height": 60, "width": 80,
         "coco_url": "https://host/1.png"}
    ]  # fmt: skip
    assert document["annotations"] == document["categories"] == []
