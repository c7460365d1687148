"""LabelMe's JSON beside images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lloss.annotations import Problems
from lloss.data.label_formats import read_any_labels
from lloss.data.label_joining import labeled_pool
from lloss.data.object_labels import join_objects, read_objects
from lloss.errors import LabelError

Write = Callable[[Path, Any], Path]


def shape(kind: str, *points: list[float], label: str = "cat") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}


def image(*shapes: Any, **fields: Any) -> dict[str, Any]:
    head = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imageData": None}
    return {**head, "imagePath": "x.jpg", "imageHeight": 30, "imageWidth": 40, **fields}


def test_shapes_with_an_area_become_boxes(
    tmp_path: Path, as_json: Write, picture: Callable[..., Path]
) -> None:
    picture(tmp_path / "set/a.png")
    picture(tmp_path / "set/b.png")
    as_json(
        tmp_path / "set/a.json",
        image(
            shape("rectangle", [30, 15], [10, 5]),
            shape("polygon", [1, 1], [5, 2], [3, 9], label="dog"),
            shape("circle", [20, 15], [24, 18]),
            shape("point", [3, 3]),
        ),
    )
    as_json(tmp_path / "set/b.json", image())
    as_json(tmp_path / "set/c.json", image(shape("line", [3, 3], [4, 4])))
    problems = Problems()
    labels = read_objects(tmp_path, problems)
    assert labels["set/a"].names == ("cat", "dog", "cat") and labels["set/a"].size == (30, 40)
    assert labels["set/a"].boxes.tolist() == [[10, 5, 30, 15], [1, 1, 5, 9], [15, 10, 25, 20]]
    assert labels["set/b"].empty and "set/c" not in labels
    notes = [note.removeprefix(f"{tmp_path}: ") for note in problems.notes]
    assert "1 circles: the upright box around each is taken" in notes
    assert "1 polygons: the upright box around each is taken" in notes
    assert "left out 1 line, 1 point, which have no area" in notes
    assert "1 image has only shapes without area: not labeled yet" in notes
    assert set(read_any_labels(tmp_path, Problems())) == set(labels)
    pool = labeled_pool(tmp_path, [tmp_path])
    assert len(join_objects(pool, labels, "labels", Problems())) == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (image(shape("polygon", [1, 1], [5, 2])), r"a.json: shapes\[0\]: 2 points are no polygon"),
        (image(shape("rectangle", [1, 1], [50, 20])), "is outside the image of 40×30"),
        (image(shape("rectangle", [1, 1], [5, 20], label=" ")), r"shapes\[0\].label: .*not a name"),
        ({"version": "5", "shapes": 3}, "a.json.shapes: 3: expected array"),
    ],
)
def test_a_broken_file_is_named(
    tmp_path: Path, as_json: Write, document: Any, message: str
) -> None:
    as_json(tmp_path / "a.json", document)
    with pytest.raises(LabelError, match=message):
        read_objects(tmp_path, Problems())
    problems = Problems(skip=True)
    assert read_objects(tmp_path, problems) == {}
    assert problems.unusable == {str(tmp_path): {"a"}}


def test_a_file_that_is_not_json_is_left_out(tmp_path: Path, as_json: Write) -> None:
    as_json(tmp_path / "a.json", image(shape("rectangle", [30, 15], [10, 5])))
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(LabelError, match="b.json: line 1: is not JSON.*--skip-bad"):
        read_objects(tmp_path, Problems())
    problems = Problems(skip=True)
    assert list(read_objects(tmp_path, problems)) == ["a"]
    assert problems.unusable == {str(tmp_path): {"b"}}
