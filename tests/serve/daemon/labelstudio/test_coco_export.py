from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.labelstudio.coco_export import coco_of
from starlette.testclient import TestClient

from lloss.annotations import Problems
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError

from .messages import exported, recorded


def box(x: Any, y: float, width: float, height: float, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    value |= {"rectanglelabels": ["tail"]} | fields.pop("value", {})
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    return {"type": "rectanglelabels", "value": value, **size, **fields}


def named(*names: Any) -> dict[str, Any]:
    return box(0, 0, 5, 5, value={"rectanglelabels": list(names)})


def drawn(*result: Any, id: str = "a/b.png") -> dict[str, Any]:
    made = exported(id, ("", None, False))
    made["annotations"][0]["result"] = list(result)
    return made


def test_the_coco_of_an_export_has_the_ids_of_the_pool(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(coco_of(recorded("export.json"), "wild")), encoding="utf-8")
    labels = read_objects(path, Problems())
    assert set(labels) == {"0.png", "1.png", "2.png", "3.png"}
    for id, label in labels.items():  # of 8 × 8 pixels, 10 % from the corner, 50 % wide
        expected = [[0.8, 0.8, 4.8, 4.8]] if id in ("1.png", "2.png") else np.empty((0, 4))
        np.testing.assert_allclose(label.boxes, expected, rtol=1e-6)


def test_a_rotated_box_becomes_its_upright_bounds() -> None:
    rotated = box(50, 10, 10, 40, value={"rotation": 90})
    (found,) = coco_of([drawn(rotated)])["annotations"]
    assert found["bbox"] == pytest.approx([100 - 40, 10, 40, 20])
    slanted = box(50, 50, 10, 20, value={"rotation": 45})  # 20 × 20 pixels
    (found,) = coco_of([drawn(slanted)])["annotations"]
    half = 20 / 2**0.5
    assert found["bbox"] == pytest.approx([100 - half, 50, 2 * half, 2 * half])


def test_the_newest_annotation_gives_the_boxes() -> None:
    task = drawn(box(0, 0, 10, 10), {"type": "choices", "value": {"choices": ["cat"]}})
    task["annotations"].append({**task["annotations"][0], "id": 9, "result": []})
    names = ("caf\u00e9", "cafe\u0301", " caf\u00e9 ")
    made = coco_of([task, drawn(*map(named, names), id="c")])
    assert [one["file_name"] for one in made["images"]] == ["a/b.png", "c"]
    assert made["categories"] == [{"id": 1, "name": "caf\u00e9"}]
    assert [one["image_id"] for one in made["annotations"]] == [2, 2, 2]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "brushlabels", "value": {}}, "'brushlabels'; objects are ellipselabels, poly"),
        ({"type": "rectangle", "value": {"x": 1, "y": 1, "width": 9, "height": 9}}, "'rectangle'"),
        (named(" \u200b"), r"rectanglelabels\[0\]: .*not a name"),
        (named(), "rectanglelabels: 0 classes; give it one"),
        (named("a", "b"), "rectanglelabels: 2 classes; give it one"),
        (3, "of the type ''"),
        ({"type": ["rectanglelabels"]}, r"is of the type .*; objects are"),
        ({**box(0, 0, 5, 5), "value": "\ud800"}, "a text has half of a character"),
        (box("1", 0, 5, 5), r"value.x: '1': expected float"),
        (box(float("nan"), 0, 5, 5), "value.x: "),
        (box(0, 0, 5, 5, original_width=0), "original_width: 0: expected float >= 1"),
        (box(0, 0, 5, 5, image_rotation=90), "was turned by 90° in Label Studio; label it up"),
        (box(0, 0, 150, 5), "is outside the image of 200×100 pixels"),
    ],
)
def test_a_region_that_is_not_a_box_is_an_error(item: Any, message: str) -> None:
    with pytest.raises(LabelError, match=rf"task 1: annotations\[0\].result\[0\].*{message}"):
        coco_of([drawn(item)])


def test_relations_and_texts_of_regions_are_left_out() -> None:
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    text = {"type": "textarea", "value": {"x": 0, "y": 0, "text": ["a word"]}}
    assert len(coco_of([drawn(relation, box(0, 0, 10, 10), text)])["annotations"]) == 1


def test_an_image_of_two_sizes_is_an_error() -> None:
    with pytest.raises(
        LabelError, match=r"result\[1\]: another region has the image's size \(100, 200\)"
    ):
        coco_of([drawn(box(0, 0, 5, 5), box(0, 0, 5, 5, original_height=90))])


def test_an_export_without_boxes_is_an_error() -> None:
    choices = {"type": "choices", "value": {"choices": ["cat"]}}
    with pytest.raises(LabelError, match="none of 2 annotated images has a box"):
        coco_of([drawn(choices), drawn(id="b.png")])


def test_an_export_is_converted_by_the_route(client: TestClient) -> None:
    document = recorded("export.json")
    reply = client.post("/labelstudio/coco?pool=wild", json=document)
    assert reply.json() == coco_of(document, "wild")
    for wrong, pool in ((document, "zoo"), ({}, "wild"), ([3], "wild")):
        reply = client.post(f"/labelstudio/coco?pool={pool}", json=wrong)
        assert reply.status_code == 422 and "\n" not in reply.json()["error"]
