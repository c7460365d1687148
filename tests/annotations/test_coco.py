"""COCO JSON of objects, and how a broken entry is named."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lloss.annotations.problems import Problems
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError

Write = Callable[[Path, Any], Path]


def test_boxes_classes_and_crowds(tmp_path: Path, as_json: Write, coco: Any) -> None:
    document = coco()
    document["annotations"][0]["ignore"] = 1
    labels = read_objects(as_json(tmp_path / "train.json", document), Problems())
    assert list(labels) == ["a.jpg", "b.jpg"]
    label = labels["a.jpg"]
    assert label.names == ("dog", "cat")
    assert label.boxes.tolist() == [[10, 5, 30.5, 15], [0, 0, 40, 30]]
    assert label.crowd.tolist() == [False, True]
    assert label.difficult.tolist() == [True, False]
    assert label.size == (30, 40)
    assert labels["b.jpg"].boxes.shape == (0, 4)


def test_a_pixel_over_the_edge_is_clipped(tmp_path: Path, as_json: Write, coco: Any) -> None:
    document = coco()
    document["annotations"][0]["bbox"] = [-1, -0.5, 42, 31]
    label = read_objects(as_json(tmp_path / "train.json", document), Problems())["a.jpg"]
    assert label.boxes[0].tolist() == [0, 0, 40, 30]


BROKEN: dict[str, tuple[str, int, str, Any, str, str]] = {
    "outside": ("annotations", 0, "bbox", [10, 5, 32, 10], "annotations[0].bbox", "outside the"),
    "left of it": ("annotations", 0, "bbox", [-9, 5, 3, 3], "annotations[0].bbox", "outside the"),
    "in the slack": ("annotations", 0, "bbox", [40, 5, 1, 3], "annotations[0].bbox", "no area in"),
    "shares": ("annotations", 0, "bbox", [0.1, 0.1, 0.5, 0.6], "annotations[0].bbox",
               "looks like shares of the image"),
    "all of it": ("annotations", 0, "bbox", [0, 0, 1, 1], "annotations[0].bbox", "give pixels"),
    "no area": ("annotations", 1, "bbox", [10, 5, 0, 10], "annotations[1].bbox", "has no area"),
    "thin": ("annotations", 1, "bbox", [30, 5, 1e-9, 10], "annotations[1].bbox", "has no area"),
    "a thousandth": ("annotations", 1, "bbox", [3, 5, 3, 4e-4], "annotations[1].bbox", "no area"),
    "negative": ("annotations", 1, "bbox", [10, 5, 9, -10], "annotations[1].bbox", "wrong order"),
    "nan": ("annotations", 0, "bbox", [10, math.nan, 9, 9], "annotations[0].bbox[1]", "nan: exp"),
    "infinite": ("annotations", 0, "bbox", [10, 5, math.inf, 9], "annotations[0].bbox[2]",
                 "inf: expected float"),
    "huge": ("annotations", 0, "bbox", [10**400, 5, 5, 9], "annotations[0].bbox[0]", "out of ran"),
    "text": ("annotations", 0, "bbox", [10, "5", 9, 9], "annotations[0].bbox[1]", "'5': expected"),
    "flag": ("annotations", 0, "bbox", [10, True, 9, 9], "annotations[0].bbox[1]", "True: expe"),
    "three": ("annotations", 0, "bbox", [10, 5, 9], "annotations[0].bbox", "array of length 4"),
    "no box": ("annotations", 0, "bbox", ..., "annotations[0]", "lacks the key 'bbox'"),
    "image": ("annotations", 0, "image_id", 99, "annotations[0].image_id", "no image has the id 9"),
    "no image": ("annotations", 0, "image_id", ..., "annotations[0]", "lacks the key 'image_id'"),
    "class": ("annotations", 0, "category_id", 9, "annotations[0].category_id", "no category has"),
    "crowd": ("annotations", 0, "iscrowd", "no", "annotations[0].iscrowd", "'no': expected bool"),
    "not known": ("categories", 1, "name", "cow", "annotations[0].category_id", "'cow' is not in"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_a_broken_annotation_is_named_or_left_out(
    tmp_path: Path, as_json: Write, coco: Any, case: tuple[str, int, str, Any, str, str]
) -> None:
    part, row, key, value, where, what = case
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    document = copy.deepcopy(coco())
    document[part][row][key] = value
    if value is ...:
        del document[part][row][key]
    path = as_json(tmp_path / "train.json", document)
    expected = f"^{re.escape(f'{path}: {where}: ')}.*{re.escape(what)}"
    with pytest.raises(LabelError, match=expected):
        read_objects(path, Problems())
    problems = Problems(skip=True)
    labels = read_objects(path, problems)
    if "no area" in what:  # it marks nothing
        assert labels["a.jpg"].names == (("dog",) if row == 1 else ("cat",))
    else:  # what is left would teach that there is nothing
        assert list(labels) == (["b.jpg"] if key != "image_id" else ["a.jpg", "b.jpg"])
    assert [bool(re.search(expected, found)) for found in problems.broken] == [True]


def test_every_broken_object_of_an_image_left_out_is_counted(
    tmp_path: Path, as_json: Write, coco: Any
) -> None:
    document = coco()
    for entry in document["annotations"]:
        entry["bbox"] = [-9, 5, 3, 3]
    problems = Problems(skip=True)
    assert list(read_objects(as_json(tmp_path / "train.json", document), problems)) == ["b.jpg"]
    assert len(problems.broken) == 2


def test_two_categories_of_one_name_are_no_one_class(
    tmp_path: Path, as_json: Write, coco: Any
) -> None:
    document = coco()
    document["categories"][0]["name"] = "dog"
    path = as_json(tmp_path / "train.json", document)
    what = r"annotations\[0\].category_id: the categories 1 and 5 are both called 'dog'"
    with pytest.raises(LabelError, match=what):
        read_objects(path, Problems())
    problems = Problems(skip=True)
    assert list(read_objects(path, problems)) == ["b.jpg"]  # neither of the two is preferred
    assert len(problems.broken) == 2
    document["annotations"][1]["category_id"] = 5  # one that nothing is of does not matter
    assert len(read_objects(as_json(path, document), Problems())["a.jpg"].names) == 2


def test_categories_are_named_in_nfc_without_spaces_around(
    tmp_path: Path, as_json: Write, coco: Any
) -> None:
    document = coco()
    document["categories"][0]["name"] = "\u00a0cafe\u0301 \u200b"
    document["categories"].append({"id": 9, "name": "of nothing"})
    label = read_objects(as_json(tmp_path / "train.json", document), Problems())["a.jpg"]
    assert label.names == ("dog", "caf\u00e9")
    document["categories"][1]["name"] = "caf\u00e9"
    with pytest.raises(LabelError, match="the categories 1 and 5 are both called 'caf\u00e9'"):
        read_objects(as_json(tmp_path / "train.json", document), Problems())


@pytest.mark.parametrize("name", [" ", "", "\u200b", 3, None, "\ud800"])
def test_a_category_without_a_name_is_refused(
    tmp_path: Path, as_json: Write, coco: Any, name: Any
) -> None:
    document = coco()
    document["categories"][0]["name"] = name
    with pytest.raises(LabelError, match=r"categories\[0\]\.name: .*: not a name"):
        read_objects(as_json(tmp_path / "train.json", document), Problems())


BROKEN_IMAGES: dict[str, tuple[str, Any, str, str, list[str]]] = {
    "same name": ("file_name", "a.jpg", "images[1].file_name",
                  "'a.jpg' stands at images[0] too", []),
    "same path": ("file_name", "./a.jpg", "images[1].file_name",
                  "'./a.jpg' stands at images[0] too", []),
    "same id": ("id", 7, "images[1].id", "7 is the id of another image", []),
    "no name": ("file_name", None, "images[1].file_name", "None: expected str", ["a.jpg"]),
    "number": ("file_name", 3, "images[1].file_name", "3: expected str", ["a.jpg"]),
    "id": ("id", "3", "images[1].id", "'3': expected int", ["a.jpg"]),
    "width": ("width", -2, "images[1].width", "-2: expected float >= 0", ["a.jpg"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_IMAGES.values(), ids=BROKEN_IMAGES)
def test_a_broken_image_is_named_or_left_out(
    tmp_path: Path, as_json: Write, coco: Any, case: tuple[str, Any, str, str, list[str]]
) -> None:
    key, value, where, what, kept = case
    document = coco()
    document["images"][1][key] = value
    path = as_json(tmp_path / "train.json", document)
    with pytest.raises(LabelError, match=re.escape(f"{path}: {where}: {what}")):
        read_objects(path, Problems())
    problems = Problems(skip=True)
    assert list(read_objects(path, problems)) == kept
    assert len(problems.broken) == 1


def test_annotations_of_an_image_left_out_are_not_counted(
    tmp_path: Path, as_json: Write, coco: Any
) -> None:
    document = coco()
    document["images"][0]["width"] = "wide"
    problems = Problems(skip=True)
    labels = read_objects(as_json(tmp_path / "train.json", document), problems)
    assert list(labels) == ["b.jpg"]
    assert len(problems.broken) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{\n", "line 2: is not JSON"),
        ("\xff", "is not JSON"),
        ("[" * 10**5, "is not JSON"),
        ("[]", "is not COCO JSON"),
        ('{"images": [], "annotations": []}', "lacks the list 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "lacks the list 'images'"),
    ],
)
def test_what_is_no_coco_file(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(LabelError, match=f"^{re.escape(str(path))}.*{what}"):
        read_objects(path, Problems(skip=True))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no.json: cannot be read: No such file"):
        read_objects(tmp_path / "no.json", Problems())
