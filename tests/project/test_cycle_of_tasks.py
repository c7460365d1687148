"""Detection and pose go the whole way that classification goes, by the same commands."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw

from lloss.errors import LlossError

from ..command_line import call

LIMBS = ("r-ankle", "r-knee", "r-hip", "l-hip", "l-knee", "l-ankle")


@pytest.fixture
def lloss(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command; return what it printed."""
    return lambda *words, code=0: call(capsys, *words, code=code).text


def coco(numbers: range, boxes: dict[int, list[tuple[str, list[int]]]]) -> dict[str, Any]:
    names = ("disc", "square")
    return {
        "images": [
            {"id": n, "file_name": f"{n:02d}.jpg", "width": 80, "height": 64} for n in numbers
        ],
        "categories": [{"id": at, "name": name} for at, name in enumerate(names, 1)],
        "annotations": [
            {"id": 100 * n + at, "image_id": n, "category_id": names.index(name) + 1, "bbox": box}
            for n in numbers
            for at, (name, box) in enumerate(boxes[n])
        ],
    }


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """``pool`` of 24 pictures of discs and squares; ``truth.json`` knows them all."""
    random, boxes = np.random.default_rng(0), {}
    (tmp_path / "pool").mkdir()
    for number in range(24):
        image = Image.fromarray(random.integers(60, 110, (64, 80, 3)).astype(np.uint8))
        boxes[number] = []
        for name in ("disc", "square")[: 1 + number % 2]:
            x, y, side = (int(v) for v in (*random.integers(0, 36, 2), random.integers(16, 27)))
            draw = ImageDraw.Draw(image)
            if name == "disc":
                draw.ellipse((x, y, x + side - 1, y + side - 1), fill=(220, 40, 40))
            else:
                draw.rectangle((x, y, x + side - 1, y + side - 1), fill=(40, 220, 40))
            boxes[number].append((name, [x, y, side, side]))
        image.save(tmp_path / "pool" / f"{number:02d}.jpg")
    (tmp_path / "truth.json").write_text(json.dumps(coco(range(24), boxes)))
    (tmp_path / "labels.json").write_text(json.dumps(coco(range(12), boxes)))
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
        *SSD,
    )  # fmt: skip
    assert "12 labeled images of 2 classes" in printed
    printed = lloss("next", project)
    assert re.search(r"map 0\.\d+ \(95 % interval .* 3 images\); the head orders \d+", printed)
    first = project / "cycles" / "001"
    summary = json.loads((first / "summary.json").read_text())
    assert (summary["labeled"], summary["selected"], summary["scored"]) == (9, 4, 12)
    assert set(summary["classes"]) == {"disc", "square"}
    assert 0 <= summary["evaluation"]["map"] <= 1
    assert "AP disc" in summary["evaluation"]["figures"]
    printed = lloss("info", first / "model.onnx")
    assert re.search(r"^loss_norm +positives: .*divided by its positive anchors$", printed, re.M)
    kinds = {node.op_type for node in onnx.load(first / "model.onnx").graph.node}
    assert "TopK" in kinds and not kinds & {"NonMaxSuppression", "NonZero", "Loop", "If", "Scan"}
    page = (first / "report.html").read_text()
    assert page.count("data:image/") == 4
    with (first / "selected.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert all(int(id[:2]) >= 12 for id in ids)
    # A person labels them; the file grows.
    assert "no new labels" in lloss("next", project)
    numbers = {*range(12), *(int(id[:2]) for id in ids)}
    truth = json.loads((shapes / "truth.json").read_text())
    truth["images"] = [image for image in truth["images"] if image["id"] in numbers]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in numbers]
    labels.write_text(json.dumps(truth))
    monkeypatch.setattr("lloss.project.cycle.train", stop)
    assert "on 13 labeled images of 2 classes" in lloss("next", project, code=2)


def test_a_broken_box_stops_before_training_or_is_left_out(
    shapes: Path, lloss: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = json.loads((shapes / "labels.json").read_text())
    truth["annotations"][3]["bbox"] = [70, 10, 40, 20]
    (shapes / "labels.json").write_text(json.dumps(truth))
    words = ["train", shapes / "pool", "--labels", shapes / "labels.json", "-o", shapes / "run"]
    printed = lloss(*words, *SSD, code=2)
    found = re.search(
        r"^lloss: .*labels\.json: annotations\[3\]\.bbox: .*--skip-bad$", printed, re.M
    )
    assert found and not (shapes / "run").exists()
    # Decoding finds broken images, which are left out like broken boxes.
    Image.new("RGB", (64, 80)).save(shapes / "pool" / "05.jpg")
    (shapes / "pool" / "06.jpg").write_bytes(b"no image")
    project = shapes / "project"
    words = ["init", project, "--pool", shapes / "pool", "--labels", shapes / "labels.json"]
    printed = lloss(*words, "-k", 2, "--skip-bad", "--holdout", 0, *SSD)
    assert "left out 1 broken annotation: " in printed
    monkeypatch.setattr("lloss.project.cycle.export_artifact", stop)
    printed = lloss("next", project, code=2)
    assert re.search(r"left out 2 broken annotations: .*'05\.jpg': .*'06\.jpg': ", printed)
    assert (project / "cycles" / "001" / "checkpoint.pt").exists()
    run = project / "cycles" / "001"
    printed = lloss("evaluate", run, shapes / "truth.json", "--skip-bad", code=2)
    assert "truth.json" in printed  # its images are not beside it


def person(name: str, random: np.random.Generator) -> dict[str, Any]:
    joints = random.uniform(20, 76, (16, 2)).round(1)
    visible = [int(n < 6 or n in (8, 9)) for n in range(16)]
    return {
        "image": name,
        "center": [48.0, 48.0],
        "scale": 0.4,
        "joints": joints.tolist(),
        "joints_vis": visible,
    }


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """``pool.json`` of 20 persons in 20 images, ``labels.json`` of twelve, ``test.json``."""
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    everyone = []
    for number in range(26):
        one = person(f"{number:02d}.png", random)
        image = Image.new("RGB", (96, 96), (30, 30, 60))
        for at, (x, y) in enumerate(one["joints"]):
            if one["joints_vis"][at]:
                ImageDraw.Draw(image).ellipse((x - 3, y - 3, x + 3, y + 3), fill=(90 + 9 * at,) * 3)
        image.save(tmp_path / "images" / one["image"])
        everyone.append(one)
    for name, some in (("pool", everyone[:20]), ("labels", everyone[:12]), ("test", everyone[20:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(some))
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
    printed = lloss("info", folder / "model.onnx")
    assert "loss_norm" not in printed
    assert re.search(r"^classes +8: r-ankle, ", printed, re.M)
    assert "no flip averaging" in lloss("evaluate", folder, people / "test.json")
    # Plain images are a pool too: each is scored whole.
    lloss("score", folder / "model.onnx", people / "images", "-o", people / "whole")
    assert json.loads((people / "whole" / "run.json").read_text())["scored"] == 26
