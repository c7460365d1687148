"""COCO keypoints, and how a broken annotation is named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lloss.annotations.joint_names import COCO
from lloss.annotations.problems import Problems
from lloss.data.pose_labels import read_persons
from lloss.errors import LabelError

from ..annotation_files import check_broken

Write = Callable[[Path, Any], Path]


def annotation(**changed: Any) -> dict[str, Any]:
    keypoints: list[Any] = [n for row in range(17) for n in (20 + row, 10 + row, 2)]
    keypoints[3:6], keypoints[8] = [0, 0, 0], 1
    entry = {
        "id": 1, "image_id": 785, "category_id": 1, "iscrowd": 0, "num_keypoints": 16,
        "bbox": [20.5, 10, 40, 60.25], "keypoints": keypoints,
    }  # fmt: skip
    entry.update(changed)
    return {key: value for key, value in entry.items() if value is not ...}


def document(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 785, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(COCO), "skeleton": []},
            {"id": 2, "name": "ball"},
        ],
        "annotations": list(annotations),
    }


def test_joints_and_a_hand_worked_region(tmp_path: Path, as_json: Write) -> None:
    path = as_json(tmp_path / "a.json", document(annotation()))
    ((id, label),) = read_persons(path, Problems()).items()
    assert id == "a.jpg@20.5,10,40,60.25"
    assert label.names == COCO
    assert label.joints[0].tolist() == [20.5, 10.5]  # the middle of the pixel 20, 10
    assert label.annotated.tolist() == [True, False] + [True] * 15
    assert math.isnan(label.head)
    # Longer side 60.25 * 1.25 = 75.3; centre 40.5, 40.125: 40.5 - 37.5 = 3, 40.125 - 37.5 = 2.6.
    assert label.region is not None
    assert label.region.as_tuple() == (3, 3, 75)


def test_who_is_no_labeled_person(tmp_path: Path, as_json: Write) -> None:
    others = [
        annotation(bbox=[2, 1, 5, 5], keypoints=[0] * 51),
        annotation(bbox=[3, 1, 5, 5], keypoints=...),
        annotation(bbox=[4, 1, 5, 5], iscrowd=1),
        annotation(bbox=[5, 1, 5, 5], category_id=2, keypoints=...),
    ]
    path = as_json(tmp_path / "a.json", document(*others, annotation()))
    assert list(read_persons(path, Problems())) == ["a.jpg@20.5,10,40,60.25"]


def keypoints(place: int, value: Any) -> list[Any]:
    values: list[Any] = [9, 9, 2] * 17
    values[place] = value
    return values


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "nan": ({"keypoints": keypoints(7, math.nan)}, "annotations[1].keypoints[7]", "nan: expected"),
    "far": ({"keypoints": keypoints(6, 5000)}, "annotations[1].keypoints",
            "the joint 'right_eye' at 5000, 9 (x, y) is far outside the image of 100×80 pixels"),
    "shares": ({"keypoints": [n / 60 if n % 3 < 2 else 2 for n in range(51)]},
               "annotations[1].keypoints", "look like shares of the image"),
    "few": ({"keypoints": [1, 2, 2] * 16}, "annotations[1].keypoints", "48 numbers; 17 joints"),
    "no size": ({"bbox": [3, 3, 0, 9]}, "annotations[1].bbox", "the box 3, 3, 0, 9 has no area"),
    "beside": ({"bbox": [900, 3, 9, 9]}, "annotations[1].bbox", "does not touch the image of 100"),
    "image": ({"image_id": 1}, "annotations[1].image_id", "no image has the id 1"),
    "category": ({"category_id": 7}, "annotations[1].category_id", "no category has the id 7"),
    "twice": ({"bbox": [20.5, 10, 40, 60.25]}, "annotations[1]", "is at annotations[0] too"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "where", "what"), BROKEN.values(), ids=BROKEN)
def test_a_broken_person_is_named_or_left_out(
    tmp_path: Path, as_json: Write, changed: dict[str, Any], where: str, what: str
) -> None:
    broken = annotation(**{"bbox": [1, 2, 9, 9], **changed})
    path = as_json(tmp_path / "train.json", document(annotation(), broken))
    expected = f"^{re.escape(f'{path}: {where}: ')}.*{re.escape(what)}"
    # Nobody knows which of two is right.
    kept = [] if "is at" in what else ["a.jpg@20.5,10,40,60.25"]
    check_broken(partial(read_persons, path), expected, kept)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["top", "bottom"], "its categories have different keypoints"),
        (["top", "end", "top"], "two keypoints of 'ball' have one name"),
        (["top", " \u200b"], r"categories\[1\]\.keypoints.*not a name"),
        (3, r"categories\[1\]\.keypoints.*expected"),
    ],
)
def test_categories_of_other_joints(tmp_path: Path, as_json: Write, names: Any, what: str) -> None:
    content = document(annotation())
    content["categories"][1]["keypoints"] = names
    with pytest.raises(LabelError, match=f"a.json: {what}"):
        read_persons(as_json(tmp_path / "a.json", content), Problems(skip=True))
