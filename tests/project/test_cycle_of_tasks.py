"""Detection and pose go the whole way that classification goes, by the same commands."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lloss.annotations import Problems
from lloss.data.object_labels import read_objects
from lloss.data.pose_labels import read_persons
from lloss.errors import LlossError

from ..command_line import call


@pytest.fixture
def lloss(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command; return what it printed."""
    return lambda *words, code=0: call(capsys, *words, code=code).text


def boxes_of(numbers: Iterable[int]) -> dict[str, Any]:
    """COCO labels of some of the pictures: a disc on each, a square on every second."""
    numbers = list(numbers)
    return {
        "images": [
            {"id": n, "file_name": f"{n:02d}.jpg", "width": 80, "height": 64} for n in numbers
        ],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "square"}],
        "annotations": [
            {"image_id": n, "category_id": category, "bbox": [9 * category + n, 9, 20, 20]}
            for n in numbers
            for category in range(1, 2 + n % 2)
        ],
    }


@pytest.fixture
def shapes(tmp_path: Path, picture: Any, as_json: Any) -> Path:
    """``pool`` of 24 pictures, ``labels.json`` of twelve."""
    for number in range(24):
        picture(tmp_path / "pool" / f"{number:02d}.jpg", 80, 64, number)
    as_json(tmp_path / "labels.json", boxes_of(range(12)))
    return tmp_path


SSD = ("--task=detection", "--size=96", "--epochs=1", "--batch-size=4", "--amp=off")


def stop(*_: object, **__: object) -> None:
    raise LlossError("enough")


def test_a_detector_goes_from_boxes_to_ids_and_takes_more_boxes(
    shapes: Path, lloss: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, labels = shapes / "project", shapes / "labels.json"
    printed = lloss(
        "init", project, "--pool", shapes / "pool", "--labels", labels, "-k", 4, "--holdout", 0.25,
        "--formats=coco,yolo", *SSD,
    )  # fmt: skip
    assert "12 labeled images of 2 classes" in printed
    settings = (project / "lloss.toml").read_text()
    assert 'strategy = "herding"' in settings and 'by = "auto"' in settings
    printed = lloss("next", project)
    assert re.search(r"map 0\.\d+ \(95 % interval .* 3 images\); the head orders \d+", printed)
    first = project / "cycles" / "001"
    summary = json.loads((first / "summary.json").read_text())
    assert (summary["labeled"], summary["selected"], summary["scored"]) == (9, 4, 12)
    assert set(summary["classes"]) == {"disc", "square"}
    assert 0 <= summary["evaluation"]["map"] <= 1
    assert "AP disc" in summary["evaluation"]["figures"]
    kinds = {node.op_type for node in onnx.load(first / "model.onnx").graph.node}
    assert "TopK" in kinds and not kinds & {"NonMaxSuppression", "NonZero", "Loop", "If", "Scan"}
    page = (first / "report.html").read_text()
    assert page.count("data:image/") == 4
    with (first / "selected.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert all(int(id[:2]) >= 12 for id in ids)
    listed = read_objects(first / "selected.coco.json", Problems())
    assert set(listed) == set(ids)
    assert all(label.size == (64, 80) for label in listed.values())
    assert len(list((first / "selected.yolo/images/train").iterdir())) == 4
    # The same by hand, of all that the detector finds.
    words = ["select", first / "scores", "-k", 4, "--strategy", "top"]
    lloss(*words, "--format=cvat", "--min-score", 0, "-o", shapes / "tasks.xml")
    found = read_objects(shapes / "tasks.xml", Problems())
    assert len(found) == 4 and sum(len(label.names) for label in found.values()) > 4
    assert {name for label in found.values() for name in label.names} <= {"disc", "square"}
    (shapes / "lost.pt").write_bytes(b"another run's")
    printed = lloss(*words, "--format=cvat", "--run", shapes / "lost.pt", "-o", "x.xml", code=2)
    assert re.search(r"lost\.pt: is damaged or not a checkpoint", printed)
    # A person labels them; the file grows.
    assert "no new labels" in lloss("next", project)
    labels.write_text(json.dumps(boxes_of({*range(12), *(int(id[:2]) for id in ids)})))
    monkeypatch.setattr("lloss.project.cycle_model.train", stop)
    assert "on 13 labeled images of 2 classes" in lloss("next", project, code=2)


def test_a_broken_box_stops_before_training_or_is_left_out(
    shapes: Path, lloss: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = boxes_of(range(12))
    document["annotations"][3]["bbox"] = [70, 30, 20, -20]
    (shapes / "labels.json").write_text(json.dumps(document))
    words = ["train", shapes / "pool", "--labels", shapes / "labels.json", "-o", shapes / "run"]
    printed = lloss(*words, *SSD, code=2)
    found = re.search(
        r"^lloss: .*labels\.json: annotations\[3\]\.bbox: .*--skip-bad$", printed, re.M
    )
    assert found and not (shapes / "run").exists()
    # Decoding finds broken images, which are left out like broken boxes.
    (shapes / "pool" / "06.jpg").write_bytes(b"no image")
    project = shapes / "project"
    words = ["init", project, "--pool", shapes / "pool", "--labels", shapes / "labels.json"]
    printed = lloss(*words, "-k", 2, "--skip-bad", "--holdout", 0, *SSD)
    assert "left out 1 broken annotation: " in printed
    monkeypatch.setattr("lloss.project.cycle_model.export_onnx", stop)
    printed = lloss("next", project, code=2)
    assert re.search(r"left out 1 broken annotation: \S*labels\.json: '06\.jpg': ", printed)
    assert (project / "cycles" / "001" / "checkpoint.pt").exists()


@pytest.fixture
def people(tmp_path: Path, picture: Any, as_json: Any, person: Any) -> Path:
    """``pool.json`` of 20 persons in 20 images, ``labels.json`` of twelve, ``test.json``."""
    visible = [int(n < 6 or n in (8, 9)) for n in range(16)]
    everyone = [
        person(f"{n:02d}.png", center=[48.0, 48.0], scale=0.4, joints_vis=visible)
        for n in range(26)
    ]
    for number, one in enumerate(everyone):
        picture(tmp_path / "images" / one["image"], 96, 96, number)
    for name, some in (("pool", everyone[:20]), ("labels", everyone[:12]), ("test", everyone[20:])):
        as_json(tmp_path / f"{name}.json", some)
    return tmp_path


def test_pose_goes_from_joints_to_persons(people: Path, lloss: Callable[..., str]) -> None:
    project = people / "project"
    lloss(
        "init", project, "--pool", people / "pool.json", "--labels", people / "labels.json",
        "--test", people / "test.json", "-k", 3, "--task=pose", "--model=hourglass1-narrow",
        "--size=64", "--epochs=1", "--batch-size=4", "--amp=off",
    )  # fmt: skip
    printed = lloss("next", project)
    assert "8 classes" in printed  # joints without an annotation are not classes
    folder = project / "cycles" / "001"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["labeled"], summary["selected"], summary["scored"]) == (12, 3, 8)
    with (folder / "selected.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert all(re.fullmatch(r"1[2-9]\.png@48,48,0\.4", id) for id in ids)
    assert (folder / "report.html").read_text().count("data:image/") == 3
    assert "no flip averaging" in lloss("evaluate", folder, people / "test.json")
    words = ["select", folder / "scores", "-k", 3, "--exclude", people / "labels.json"]
    printed = lloss(*words, "--format=coco", "--min-score", 0, "-o", people / "tasks.json")
    assert "images alone" not in printed
    listed = read_persons(people / "tasks.json", Problems())
    assert len(listed) == 3 and all(re.fullmatch(r"1[2-9]\.png@48,48,0\.4", id) for id in listed)
    for label in listed.values():
        assert label.region is not None and len(label.names) == 8 and label.annotated.any()
        low = np.array([label.region.left, label.region.top])
        shown = label.joints[label.annotated]
        assert ((shown >= low) & (shown <= low + label.region.side)).all()
    # Plain images are a pool too: each is scored whole.
    lloss("score", folder / "model.onnx", people / "images", "-o", people / "whole")
    assert json.loads((people / "whole" / "run.json").read_text())["scored"] == 26
