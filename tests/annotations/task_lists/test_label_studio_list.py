from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.annotations.label_studio_masks import parse_masks
from lloss.annotations.label_types import NO_CLASS
from lloss.annotations.task_lists.label_studio_list import brush, write_label_studio
from lloss.annotations.task_lists.task_list import TaskList
from lloss.data.class_labels import read_class_labels
from lloss.data.object_labels import read_objects

from .lists import JOINTS, SIZE, classes, image, mask, masks, objects, persons


def written(tasks: TaskList, path: Path, image_url: str = "") -> list[dict[str, Any]]:
    write_label_studio(tasks, path, image_url)
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def controls(path: Path) -> dict[str, tuple[str, list[str | None]]]:
    """Tag and values of each control of the interface, by its name."""
    root = ElementTree.parse(path).getroot()
    return {
        str(one.get("name")): (one.tag, [choice.get("value") for choice in one])
        for one in root
        if one.get("toName") == "image"
    }


def test_boxes_are_per_cents_of_the_image(tmp_path: Path) -> None:
    first, second, third = written(objects(), tmp_path / "tasks.json")
    assert first["data"]["lloss_id"] == "a/1.png" and first["data"]["lloss_rank"] == 1
    (found,) = first["predictions"]
    assert (found["model_version"], found["score"]) == ("abc123", 0.9)
    height, width = SIZE
    values = [one["value"] for one in found["result"]]
    edges = [[v["x"], v["y"], v["x"] + v["width"], v["y"] + v["height"]] for v in values]
    pixels = np.array(edges) / 100 * [width, height, width, height]
    assert pixels == pytest.approx(np.array([[10, 5, 30.5, 25], [40, 0, 80, 60]]), abs=1e-3)
    assert [value["rectanglelabels"] for value in values] == [["dog"], ["cat"]]
    assert [one["score"] for one in found["result"]] == [0.9, 0.5]
    assert second["predictions"][0]["result"] == []
    assert "predictions" not in third
    expected = {"label": ("RectangleLabels", ["cat", "dog"])}
    assert controls(tmp_path / "tasks.interface.xml") == expected


def test_classes_are_choices(tmp_path: Path) -> None:
    first, _ = written(classes(), tmp_path / "tasks.json")
    (result,) = first["predictions"][0]["result"]
    assert result["value"] == {"choices": ["dog"]} and result["type"] == "choices"
    assert first["predictions"][0]["score"] == 0.75
    assert controls(tmp_path / "tasks.interface.xml") == {"choice": ("Choices", ["cat", "dog"])}


def test_joints_belong_to_the_box_of_their_person(tmp_path: Path) -> None:
    (task,) = written(persons(), tmp_path / "tasks.json")
    assert task["data"]["lloss_persons"] == ["1.png@30,15,0.2", "1.png@40,15,0.2"]
    results = task["predictions"][0]["result"]
    boxes = [one["id"] for one in results if one["type"] == "rectanglelabels"]
    joints = [one for one in results if one["type"] == "keypointlabels"]
    assert [boxes.index(one["parentID"]) for one in joints] == [0, 0, 0, 1, 1]
    value = joints[0]["value"]
    assert (value["x"] / 100 * SIZE[1], value["y"] / 100 * SIZE[0]) == pytest.approx((20.5, 12))
    named = controls(tmp_path / "tasks.interface.xml")
    assert named["kp-1"] == ("KeyPointLabels", list(JOINTS))
    used = {(one["from_name"], one["to_name"]) for one in results}
    assert used == {(name, "image") for name in named}


def unpacked(data: list[int]) -> list[int]:
    """Values of thi.ng's rle-pack, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = take(32), take(5) + 1
    widths = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated, length = take(1), take(widths[take(2)]) + 1
        if repeated:
            values += [take(word)] * length
        else:
            values += [take(word) for _ in range(length)]
    return values


def test_a_mask_is_a_brush_of_rgba(tmp_path: Path) -> None:
    (task,) = written(masks(), tmp_path / "tasks.json")
    disc, line = task["predictions"][0]["result"]
    assert disc["value"]["brushlabels"] == ["disc"] and disc["value"]["format"] == "rle"
    for number, one in ((1, disc), (2, line)):
        values = np.reshape(unpacked(one["value"]["rle"]), (*SIZE, 4))
        assert (values == 255 * (mask() == number)[..., None]).all()


def test_runs_of_any_length_are_brushed() -> None:
    pixels = np.zeros((300, 200), bool)
    pixels[0, 1] = pixels[1, :3] = pixels[2, :20] = pixels[100:, :] = True
    assert unpacked(brush(pixels)) == (np.repeat(pixels.ravel(), 4) * 255).tolist()


def test_a_brush_is_what_label_studios_own_converter_decodes() -> None:
    converter = pytest.importorskip("label_studio_sdk.converter.brush", reason="decodes brushes")
    pixels = mask() == 1
    decoded = np.reshape(converter.decode_rle(brush(pixels)), (*SIZE, 4))
    assert (decoded[:, :, 3] == 255 * pixels).all()


def accepted(tasks: TaskList, path: Path) -> Path:
    """The export of a labeler who took every prediction as it was."""
    entries = written(tasks, path)
    for number, task in enumerate(entries, 1):
        found = task.pop("predictions", [{"result": []}])[0]["result"]
        task["annotations"] = [{"id": number, "result": found}]
    path.write_text(json.dumps(entries))
    return path


def test_what_a_labeler_accepts_comes_back(tmp_path: Path) -> None:
    labels = read_objects(accepted(objects(), tmp_path / "objects.json"), Problems())
    assert labels["a/1.png"].names == ("dog", "cat")
    expected = np.array([[10, 5, 30.5, 25], [40, 0, 80, 60]])
    assert labels["a/1.png"].boxes == pytest.approx(expected, abs=1e-3)
    named = read_class_labels(accepted(classes(), tmp_path / "classes.json"), Problems())
    assert named == {"1.png": "dog", "2.png": "cat"}
    document = json.loads(accepted(masks(), tmp_path / "masks.json").read_text())
    (found,) = parse_masks(document, "masks.json", Problems())
    numbers = np.array([("background", "disc", "line").index(name) for name in found.classes])
    assert (numbers[found.pixels] == np.where(mask() == NO_CLASS, 0, mask())).all()


@pytest.mark.parametrize(
    ("source", "pattern", "url"),
    [
        ("/pool/a b.png", "", "/data/local-files/?d=pool/a%20b.png"),
        ("https://host/a.png", "", "https://host/a.png"),
        ("/pool/a.png", "https://host/{id}?x", "https://host/c/%C3%A9.png?x"),
        ("/pool/a.png", "s3://bucket/{path}", "s3://bucket/pool/a.png"),
    ],
)
def test_the_url_of_an_image(tmp_path: Path, source: str, pattern: str, url: str) -> None:
    tasks = TaskList([image("c/é.png", None, source=source)], "detection", ("cat",), "")
    (task,) = written(tasks, tmp_path / "tasks.json", pattern)
    assert task == {
        "data": {"image": url, "lloss_id": "c/é.png", "lloss_rank": 1, "lloss_score": 2.5}
    }
