from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import ObjectLabel, PersonLabel
from lloss.annotations.native import write_labels
from lloss.errors import LabelError
from lloss.jsonids import read_json_ids
from lloss.labels import read_ids
from lloss.regions import Region

BOX = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
KEYPOINTS = {"keypoints": [3, 3, 2], "num_keypoints": 1}
COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a/1.jpg", "width": 9, "height": 9},
        {"id": 2, "file_name": "2.jpg", "width": 9, "height": 9},
    ],
    "categories": [{"id": 1, "name": "dog", "keypoints": ["nose"], "skeleton": []}],
    "annotations": [{"id": 1, **BOX}],
}
MPII = {
    "image": "p.jpg",
    "center": [20.0, 20.0],
    "scale": 0.1,
    "joints": [[5.0, 5.0]] * 16,
    "joints_vis": [1] * 16,
}


def _written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_images_of_objects_are_named_by_their_file_names(tmp_path: Path) -> None:
    assert read_json_ids(_written(tmp_path / "o.json", COCO)) == {"a/1.jpg", "2.jpg"}


def test_persons_are_named_by_themselves_and_by_their_images(tmp_path: Path) -> None:
    coco = {**COCO, "annotations": [{"id": 1, **BOX, **KEYPOINTS}]}
    assert read_json_ids(_written(tmp_path / "k.json", coco)) == {"a/1.jpg", "a/1.jpg@1,1,5,5"}
    unlabeled = {**MPII, "image": "q.jpg", "joints_vis": [0] * 16}
    path = _written(tmp_path / "m.json", [MPII, unlabeled, {"image": "broken.jpg"}])
    assert read_json_ids(path) == {"p.jpg", "p.jpg@20,20,0.1"}


def test_what_a_cycle_keeps_is_read(tmp_path: Path) -> None:
    none = np.zeros(0, np.bool_)
    objects = {"x.jpg": ObjectLabel((), np.zeros((0, 4), np.float32), none, none, (9, 9))}
    write_labels(objects, tmp_path / "o.json")
    assert read_json_ids(tmp_path / "o.json") == {"x.jpg"}
    joints, seen = np.zeros((1, 2), np.float32), np.ones(1, np.bool_)
    person = PersonLabel("y.jpg", Region(4, 4, 2), ("nose",), joints, seen, 1.0)
    write_labels({"y.jpg@4,4,2": person}, tmp_path / "p.json")
    assert read_json_ids(tmp_path / "p.json") == {"y.jpg@4,4,2", "y.jpg"}
    masks = {"z.jpg": {"path": "/m/z.png", "sha256": "ab", "names": {"0": "sky"}}}
    assert read_json_ids(_written(tmp_path / "s.json", masks)) == {"z.jpg"}


@pytest.mark.parametrize(
    "document", [[], {}, 3, {"a": "b" * 5000}, ["x" * 5000] * 9, {"images": [], "annotations": []}]
)
def test_a_json_without_ids_is_one_short_line(document: Any, tmp_path: Path) -> None:
    path = _written(tmp_path / "odd.json", document)
    with pytest.raises(LabelError) as told:
        read_json_ids(path)
    assert len(str(told.value)) < 200 + len(str(path)) and "\n" not in str(told.value)


def test_ids_of_several_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "done.csv").write_text("id,label\nu.jpg,\n")
    path = _written(tmp_path / "O.JSON", COCO)
    assert read_ids(tmp_path / "done.csv", path) == {"u.jpg", "a/1.jpg", "2.jpg"}
