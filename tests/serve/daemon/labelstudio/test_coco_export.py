"""Boxes out of exports, as COCO's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.labelstudio.coco_export import coco_of

from lloss.annotations import Problems
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError

from .messages import exported, recorded


def box(x: float, y: float, width: float, height: float, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    value |= {"rectanglelabels": ["tail"]} | fields.pop("value", {})
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    return {"type": "rectanglelabels", "value": value, **size, **fields}


def drawn(*result: Any, id: str = "a/b.png") -> dict[str, Any]:
    made = exported(id, ("", None, False))
    made["annotations"][0]["result"] = list(result)
    return made


def test_boxes_become_coco_that_lloss_reads_with_the_ids_of_the_pool(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(coco_of(recorded("export.json"), "wild")), encoding="utf-8")
    labels = read_objects(path, Problems())
    assert set(labels) == {"0.png", "1.png", "2.png", "3.png"}
    for id, label in labels.items():  # of 8 × 8 pixels, 10 % from the corner, 50 % wide
        expected = [[0.8, 0.8, 4.8, 4.8]] if id in ("1.png", "2.png") else np.empty((0, 4))
        np.testing.assert_allclose(label.boxes, expected, rtol=1e-6)


def test_a_turned_box_becomes_the_upright_one_around_it() -> None:
    turned = box(50, 10, 10, 40, value={"rotation": 90})
    (found,) = coco_of([drawn(turned)])["annotations"]
    assert found["bbox"] == pytest.approx([100 - 40, 10, 40, 20])
    slanted = box(50, 50, 10, 20, value={"rotation": 45})  # 20 × 20 pixels
    (found,) = coco_of([drawn(slanted)])["annotations"]
    half = 20 / 2**0.5
    assert found["bbox"] == pytest.approx([100 - half, 50, 2 * half, 2 * half])


def test_of_several_annotations_the_newest_one_gives_the_boxes() -> None:
    task = drawn(box(0, 0, 10, 10), {"type": "choices", "value": {"choices": ["cat"]}})
    task["annotations"].append({**task["annotations"][0], "id": 9, "result": []})
    made = coco_of([task, drawn(box(0, 0, 5, 5, value={"rectanglelabels": ["ear"]}), id="c")])
    assert [one["file_name"] for one in made["images"]] == ["a/b.png", "c"]
    assert made["categories"] == [{"id": 1, "name": "ear"}]
    assert [one["image_id"] for one in made["annotations"]] == [2]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "polygonlabels", "value": {}}, "polygonlabels.*only rectangles"),
        ({"type": "polygon", "value": {"points": [[1, 1], [9, 1], [5, 9]]}}, "polygon.*only rect"),
        ({"type": "rectangle", "value": {"x": 1, "y": 1, "width": 9, "height": 9}}, "'rectangle'"),
        ({"type": "brush", "value": {"format": "rle", "rle": [1]}}, "'brush'.*only rectangles"),
        ({"value": {"x": 1}}, "of the type None"),
        (box(0, 0, 5, 5, value={"rectanglelabels": [" \u200b"]}), "a class with a name"),
        ({"type": "rectanglelabels"}, "value must be an object"),
        (3, "value must be an object"),
        (box("1", 0, 5, 5), "x must be a number, not '1'"),  # type: ignore[arg-type]
        (box(float("nan"), 0, 5, 5), "x must be a number"),
        (box(0, 0, 5, True), "height must be a number"),
        (box(0, 0, 5, 5, original_width=0), "must be positive"),
        (box(0, 0, 5, 5, original_height=None), "original_height must be a number"),
        (box(0, 0, 5, 5, image_rotation=90), "image_rotation must be 0, not 90"),
        (box(0, 0, 5, 5, value={"rectanglelabels": []}), "must be one class"),
        (box(0, 0, 5, 5, value={"rotation": None}), "rotation must be a number"),
    ],
)
def test_what_is_no_box_is_an_error(item: Any, message: str) -> None:
    with pytest.raises(LabelError, match=rf"task 1: annotations\[0\].result\[0\].*{message}"):
        coco_of([drawn(item)])
    with pytest.raises(LabelError, match="JSON_MIN"):
        coco_of(recorded("export_min.json"))


def test_what_is_said_of_boxes_and_between_them_is_match_exclusion() -> None:
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    text = {"type": "textarea", "value": {"x": 0, "y": 0, "text": ["a word"]}}
    made = coco_of([drawn(relation, box(0, 0, 10, 10), text)])
    assert len(made["annotations"]) == 1


def test_names_of_classes_are_compared_as_everywhere() -> None:
    names = ("caf\u00e9", "cafe\u0301", " caf\u00e9 ")
    made = coco_of([drawn(*(box(0, 0, 5, 5, value={"rectanglelabels": [n]}) for n in names))])
    assert made["categories"] == [{"id": 1, "name": "caf\u00e9"}]


def test_an_image_has_one_size() -> None:
    with pytest.raises(LabelError, match=r"result\[1\].*other regions, \(200.0, 100.0\), not"):
        coco_of([drawn(box(0, 0, 5, 5), box(0, 0, 5, 5, original_height=90))])


@pytest.mark.parametrize("result", [[], [{"type": "choices", "value": {"choices": ["cat"]}}]])
def test_an_export_without_a_box_is_no_export_of_boxes(result: Any) -> None:
    with pytest.raises(LabelError, match="none of 2 annotated images has a box"):
        coco_of([drawn(*result), drawn(id="b.png")])


def test_tasks_of_two_pools_are_not_mixed() -> None:
    other = drawn(box(0, 0, 9, 9))
    other["data"] = other["data"] | {"lloss_pool": "q"}
    with pytest.raises(LabelError, match="task 2: the tasks are of the pools 'p' and 'q'"):
        coco_of([drawn(box(0, 0, 5, 5)), other])
    assert len(coco_of([drawn(box(0, 0, 5, 5)), other], "q")["annotations"]) == 1
