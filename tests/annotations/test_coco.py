"""COCO JSON of objects, and how a broken entry is named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lloss.annotations.problems import Problems
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError

from ..annotation_files import check_broken

Write = Callable[[Path, Any], Path]


def test_boxes_classes_and_crowds(tmp_path: Path, as_json: Write, coco: Any) -> None:
    document = coco()
    document["annotations"][0]["ignore"] = 1
    document["annotations"][1]["bbox"] = [-1, -0.5, 42, 31]  # a pixel over the edge is clipped
    labels = read_objects(as_json(tmp_path / "train.json", document), Problems())
    assert list(labels) == ["a.jpg", "b.jpg"]
    label = labels["a.jpg"]
    assert label.names == ("dog", "cat") and type(label.names[0]) is str
    assert label.boxes.tolist() == [[10, 5, 30.5, 15], [0, 0, 40, 30]]
    assert label.crowd.tolist() == [False, True]
    assert label.difficult.tolist() == [True, False]
    assert label.size == (30, 40)
    assert labels["b.jpg"].boxes.shape == (0, 4)


def test_annotations_with_a_score_are_counted(tmp_path: Path, as_json: Write, coco: Any) -> None:
    document, problems = coco(), Problems()
    document["annotations"][0]["score"] = 0.7
    path = as_json(tmp_path / "picks.json", document)
    assert len(read_objects(path, problems)["a.jpg"].names) == 2
    (note,) = problems.notes
    assert note.startswith(f"{path}: 1 of 2 annotations have a score, as what a network finds")


BROKEN: dict[str, tuple[str, int, str, Any, str, str]] = {
    "outside": ("annotations", 0, "bbox", [10, 5, 32, 10], "annotations[0].bbox", "outside the"),
    "in the slack": ("annotations", 0, "bbox", [40, 5, 1, 3], "annotations[0].bbox", "no area in"),
    "shares": ("annotations", 0, "bbox", [0.1, 0.1, 0.5, 0.6], "annotations[0].bbox",
               "looks like shares of the image"),
    "all of it": ("annotations", 0, "bbox", [0, 0, 1, 1], "annotations[0].bbox", "give pixels"),
    "no area": ("annotations", 1, "bbox", [10, 5, 0, 10], "annotations[1].bbox", "has no area"),
    "a thousandth": ("annotations", 1, "bbox", [3, 5, 3, 4e-4], "annotations[1].bbox", "no area"),
    "negative": ("annotations", 1, "bbox", [10, 5, 9, -10], "annotations[1].bbox", "wrong order"),
    "nan": ("annotations", 0, "bbox", [10, math.nan, 9, 9], "annotations[0].bbox[1]", "nan: exp"),
    "image": ("annotations", 0, "image_id", 99, "annotations[0].image_id", "no image has the id 9"),
    "no image": ("annotations", 0, "image_id", ..., "annotations[0]", "lacks the key 'image_id'"),
    "class": ("annotations", 0, "category_id", 9, "annotations[0].category_id", "no category has"),
}  # fmt: skip
KEPT = {"image": ["a.jpg", "b.jpg"], "no image": ["a.jpg", "b.jpg"]}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_entry_is_named_or_left_out(
    tmp_path: Path, as_json: Write, coco: Any, case: str
) -> None:
    part, row, key, value, where, what = BROKEN[case]
    document = coco()
    document[part][row][key] = value
    if value is ...:
        del document[part][row][key]
    path = as_json(tmp_path / "train.json", document)
    expected = f"^{re.escape(f'{path}: {where}: ')}.*{re.escape(what)}"
    # A box without area marks nothing; what is left of other images would teach the same.
    kept = ["a.jpg", "b.jpg"] if "no area" in what else KEPT.get(case, ["b.jpg"])
    check_broken(partial(read_objects, path), expected, kept)
    if "no area" in what:
        label = read_objects(path, Problems(skip=True))["a.jpg"]
        assert label.names == (("dog",) if row == 1 else ("cat",))


def test_all_broken_objects_of_an_image_are_counted(
    tmp_path: Path, as_json: Write, coco: Any
) -> None:
    document = coco()
    for entry in document["annotations"]:
        entry["bbox"] = [-9, 5, 3, 3]
    path = as_json(tmp_path / "train.json", document)
    check_broken(partial(read_objects, path), "outside the image", ["b.jpg"], 2)


@pytest.mark.parametrize(
    ("part", "changed", "what"),
    [
        ("images", {"file_name": "a.jpg"}, "images[1].file_name: 'a.jpg' is at images[0] too"),
        ("images", {"file_name": "./a.jpg"}, "images[1].file_name: './a.jpg' is at images[0] too"),
        ("images", {"id": 7}, "images[1].id: 7 is the id of images[0] too"),
        ("images", {"width": "wide"}, "images[1].width: 'wide': expected float"),
        ("categories", {"name": " "}, "categories[1].name: ' ': not a name"),
        (
            "categories",
            {"name": "\u00a0cat \u200b"},
            "the categories 5 and 1 are both called",
        ),
    ],
)
def test_a_broken_image_or_category_makes_the_file_doubtful(
    tmp_path: Path, as_json: Write, coco: Any, part: str, changed: Any, what: str
) -> None:
    document = coco()
    document[part][1].update(changed)
    path = as_json(tmp_path / "train.json", document)
    with pytest.raises(LabelError, match=re.escape(f"{path}: {what}")):
        read_objects(path, Problems(skip=True))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "is not COCO JSON"),
        ('{"images": [], "annotations": []}', "lacks the list 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "lacks the list 'images'"),
    ],
)
def test_a_file_that_is_not_coco(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(LabelError, match=f"^{re.escape(str(path))}.*{what}"):
        read_objects(path, Problems(skip=True))
