"""Label Studio's JSON export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.data.class_labels import read_class_labels
from lloss.data.label_formats import read_any_labels
from lloss.data.object_labels import open_objects, read_objects
from lloss.data.pose_labels import read_persons
from lloss.errors import LabelError

Make = Callable[..., dict[str, Any]]


def choice(*names: str, control: str = "kind") -> dict[str, Any]:
    return {"type": "choices", "from_name": control, "value": {"choices": list(names)}}


def region(kind: str, name: str | None = "cat", **value: Any) -> dict[str, Any]:
    """On an image of 200 × 100 pixels."""
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    return {"type": kind, **size, "value": {**value, kind: [] if name is None else [name]}}


def annotation(*result: Any, **fields: Any) -> dict[str, Any]:
    return {"id": 1, "result": list(result), "was_cancelled": False, **fields}


def task(data: Any, *annotations: dict[str, Any], **fields: Any) -> dict[str, Any]:
    data = {"image": data} if isinstance(data, str) else data
    return {"data": data, "annotations": list(annotations), **fields}


def write(folder: Path, *tasks: dict[str, Any]) -> Path:
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("/data/upload/12/0a1b2c3d-cat_1.jpg", "cat_1.jpg"),
        ("upload/12/0a1b2c3d-deadbeef-x.jpg", "deadbeef-x.jpg"),
        ("/data/upload/0a1b2c3d-caf%C3%A9.jpg", "caf\u00e9.jpg"),
        ("http://host:8080/data/upload/1/0a1b2c3d-a.jpg", "a.jpg"),
        ("/data/local-files/?d=set/images/a%20b.jpg", "set/images/a b.jpg"),
        ("s3://bucket/set/a.jpg", "s3://bucket/set/a.jpg"),
        ("deadbeef-x.jpg", "deadbeef-x.jpg"),
        ({"image": "/data/upload/1/0a1b2c3d-a.jpg", "lloss_id": "set/a.jpg"}, "set/a.jpg"),
        ({"text": "a cat.", "photo": "https://host/a.jpg?size=2"}, "https://host/a.jpg?size=2"),
        ({"image": "a.jpg", "thumbnail": "b.jpg"}, "a.jpg"),
    ],
)
def test_a_task_names_its_image(tmp_path: Path, data: Any, name: str) -> None:
    path = write(tmp_path, task(data, annotation(choice("cat"))))
    assert read_class_labels(path, Problems()) == {name: "cat"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"text": "a cat."}, "names no image"),
        ({"image": ["a.jpg", "b.jpg"]}, "names no image"),
        ({"left": "a.jpg", "right": "b.jpg"}, r"has several images \(left, right\); name it under"),
        ("/tasks/3/resolve/?fileuri=czM6Ly9i", "does not say the image's path"),
    ],
)
def test_a_task_that_does_not_is_named(tmp_path: Path, data: Any, message: str) -> None:
    path = write(tmp_path, task(data, annotation(choice("cat"))))
    with pytest.raises(LabelError, match=rf"export.json: task 1.data: .*{message}"):
        read_class_labels(path, Problems())


def test_only_what_an_annotator_submitted_is_a_label(tmp_path: Path) -> None:
    early, late = {"updated_at": "2026-01-01T09:00:00Z"}, {"updated_at": "2026-01-02T09:00:00Z"}
    predicted = {"predictions": [{"result": [choice("dog")]}], "drafts": [{"result": []}]}
    path = write(
        tmp_path,
        task("a.jpg", annotation(choice("new"), **late), annotation(choice("old"), **early)),
        task(
            "b.jpg",
            annotation(choice("truth"), **early, ground_truth=True),
            annotation(choice("other"), **late),
        ),
        task("c.jpg", annotation(was_cancelled=True)),
        task("d.jpg", **predicted),
        task("e.jpg", annotation()),
    )
    problems = Problems()
    assert read_class_labels(path, problems) == {"a.jpg": "new", "b.jpg": "truth"}
    assert [note.removeprefix(f"{path}: ") for note in problems.notes] == [
        "1 of 5 tasks has no annotation: not labeled yet (predictions are no labels)",
        "1 of 5 tasks was skipped: not labeled",
        "1 draft left out, since not submitted yet",
        "2 images have several annotations: the newest of each counts",
        "1 of 3 annotated images has no choice: not labeled yet",
        "annotators chose different classes for 2 images",
    ]
    assert set(read_any_labels(path, Problems())) == {"a.jpg", "b.jpg", "e.jpg"}


def test_two_uploads_of_one_name_may_be_two_images(tmp_path: Path) -> None:
    uploads = ("/data/upload/1/0a1b2c3d-a.jpg", "/data/upload/1/99999999-a.jpg")
    path = write(tmp_path, *(task(one, annotation(choice("cat"))) for one in uploads))
    with pytest.raises(LabelError, match="task 2: are '.*3d-a.jpg' and '.*99-a.jpg' one image or"):
        read_class_labels(path, Problems())
    problems = Problems(skip=True)
    read_class_labels(path, problems)
    assert problems.unusable == {str(path): {"a.jpg"}}


def test_an_image_of_two_choices_is_broken(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        task("a.jpg", annotation(choice("x", "y"))),
        task("b.jpg", annotation(choice("x"))),
    )
    with pytest.raises(
        LabelError, match=r"annotations\[0\]: has the choices 'x' and 'y'; keep one"
    ):
        read_class_labels(path, Problems())
    problems = Problems(skip=True)
    assert read_class_labels(path, problems) == {"b.jpg": "x"}
    assert problems.unusable == {str(path): {"a.jpg"}}


def test_of_two_controls_one_is_named(tmp_path: Path) -> None:
    both = annotation(choice("cat"), choice("dark", control="light"))
    path = write(tmp_path, task("a.jpg", both))
    with pytest.raises(LabelError, match=r"choices of 'kind' and 'light'; add \?control=NAME"):
        read_class_labels(path, Problems())
    assert read_class_labels(Path(f"{path}?control=light"), Problems()) == {"a.jpg": "dark"}
    with pytest.raises(LabelError, match="has choices of 'kind' and 'light'"):
        read_class_labels(Path(f"{path}?control=other"), Problems())


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([{"id": 1, "annotation_id": 3, "image": "a.jpg", "choice": "cat"}], "JSON-MIN; export JS"),
        ({"tasks": []}, "not an export of Label Studio: export JSON, which is a list of tasks"),
        ({"images": [], "annotations": [], "categories": []}, "is COCO JSON.*--task detection"),
        (
            [task({"lloss_id": "a", "lloss_pool": p}, annotation()) for p in "pq"],
            "task 2: the tasks are of the pools 'p' and 'q'",
        ),
    ],
)
def test_other_json_is_refused(tmp_path: Path, document: Any, message: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(document))
    with pytest.raises(LabelError, match=message):
        read_class_labels(path, Problems())


def test_regions_become_boxes(tmp_path: Path) -> None:
    corner = {"x": 50, "y": 10, "width": 10, "height": 40}
    path = write(
        tmp_path,
        task(
            "a.jpg",
            annotation(
                region("rectanglelabels", x=10, y=20, width=30, height=40),
                region("rectanglelabels", **corner, rotation=90),
                region("polygonlabels", "dog", points=[[10, 10], [20, 10], [15, 30]]),
                region("ellipselabels", x=50, y=50, radiusX=10, radiusY=5),
                {"type": "textarea", "value": {"text": ["a word"]}},
            ),
        ),
        task("b.jpg", annotation(choice("dark"))),
    )
    problems = Problems()
    labels = read_objects(path, problems)
    assert labels["a.jpg"].names == ("cat", "cat", "dog", "cat")
    expected = [[20, 20, 80, 60], [60, 10, 100, 30], [20, 10, 40, 30], [80, 45, 120, 55]]
    np.testing.assert_allclose(labels["a.jpg"].boxes, expected, atol=1e-4)
    assert labels["a.jpg"].size == (100, 200) and labels["b.jpg"].empty
    for what in ("1 turned boxes", "1 polygons", "1 ellipses"):
        assert f"{path}: {what}: the upright box around each is taken" in problems.notes
    assert read_any_labels(path, Problems())["a.jpg"].names == labels["a.jpg"].names


def test_a_turned_ellipse_is_within_its_box() -> None:
    from lloss.annotations.label_studio_regions import Ellipse

    angle = np.linspace(0, 2 * np.pi, 10_000)
    turn = np.radians(30)
    x, y = 20 * np.cos(angle), 5 * np.sin(angle)
    xs, ys = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    expected = [100 + xs.min(), 50 + ys.min(), 100 + xs.max(), 50 + ys.max()]
    ellipse = Ellipse(50, 50, 10, 5, 30)
    np.testing.assert_allclose(ellipse.edges(2, 1), expected, atol=1e-4)


def test_an_image_with_a_brush_is_left_out_whole(tmp_path: Path) -> None:
    box = region("rectanglelabels", x=10, y=20, width=30, height=40)
    path = write(
        tmp_path,
        task("a.jpg", annotation(box, region("brushlabels", rle=[1]))),
        task("b.jpg", annotation(box)),
    )
    with pytest.raises(LabelError, match=r"result\[1\]: is of the type 'brushlabels'; objects are"):
        read_objects(path, Problems())
    problems = Problems(skip=True)
    assert list(read_objects(path, problems)) == ["b.jpg"]
    assert problems.unusable == {str(path): {"a.jpg"}}


def test_keypoints_are_the_joints_of_one_person(tmp_path: Path) -> None:
    nose, eye = (region("keypointlabels", name, x=50, y=10, width=1) for name in ("nose", "eye"))
    path = write(
        tmp_path, task("a.jpg", annotation(nose, eye)), task("b.jpg", annotation(eye)),
        task("c.jpg", annotation()),
    )  # fmt: skip
    problems = Problems()
    labels = read_persons(path, problems)
    assert list(labels) == ["a.jpg", "b.jpg"]
    assert labels["a.jpg"].names == labels["b.jpg"].names == ("eye", "nose")
    np.testing.assert_allclose(labels["a.jpg"].joints, [[100, 10], [100, 10]])
    assert labels["b.jpg"].annotated.tolist() == [True, False]
    assert any("1 of 3 persons has no annotated joint" in note for note in problems.notes)
    assert set(read_any_labels(path, Problems())) == {"a.jpg", "b.jpg"}
    with pytest.raises(LabelError, match="a second keypoint is called 'nose'; an image is to show"):
        read_persons(write(tmp_path, task("a.jpg", annotation(nose, nose))), Problems())


def test_an_export_is_no_data_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, task("a.jpg", annotation()))
    with pytest.raises(LabelError, match="without images; give the pool, and it as --labels"):
        open_objects(str(path), Problems())


def test_a_control_without_a_name_of_its_own_is_no_other(tmp_path: Path) -> None:
    odd = {**choice("cat"), "from_name": ["kind"]}
    assert read_class_labels(write(tmp_path, task("a.jpg", annotation(odd))), Problems()) == {
        "a.jpg": "cat"
    }
