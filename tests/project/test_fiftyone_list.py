"""Picks as samples of a dataset of FiftyOne."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations.label_types import PersonLabel
from lloss.annotations.prediction import ClassMask, Prediction, found_objects
from lloss.annotations.task_lists.task_list import ListedPick, TaskImage, TaskList
from lloss.errors import PoolError
from lloss.images.decode import Raw
from lloss.pools.fiftyone_pool import using_database
from lloss.project.fiftyone_list import write_fiftyone
from lloss.project.project import Project
from tests.command_line import call

from ..fiftyone_fake import Dataset, install


def read() -> Raw:
    raise NotImplementedError


def listed(path: Path | str, rank: int, *found: Prediction | None) -> TaskImage:
    picks = tuple(ListedPick(f"id{rank}", rank, 1 / rank, None, one) for one in found)
    return TaskImage(f"{rank}.png", str(path), (30, 40), picks, read)


def tasks(*images: TaskImage, task: str = "detection", classes: Sequence[str] = ()) -> TaskList:
    return TaskList(iter(images), task, tuple(classes), "v")


def scores(*values: float) -> Any:
    return np.array(values, np.float32)


def rows(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [{"id": f"s{name}", "filepath": str(folder / name)} for name in names]


def test_picks_are_tagged_in_place_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(rows(tmp_path, "a", "b", "c"))
    install(monkeypatch, set=dataset)
    boxes = Prediction(found_objects(["cat"], [[10, 15, 30, 18]], (30, 40)), scores(0.75))
    image = listed(tmp_path / "a", 1, boxes), listed(tmp_path / "b", 2, None)
    (line,) = write_fiftyone(tasks(*image), "fiftyone:set")
    assert line.startswith("fiftyone:set: 2 samples have the tag 'lloss' and lloss_rank, ")
    assert "added" not in line and not dataset.persistent
    found = dataset.rows[0]["lloss_prediction"].to_dict()["detections"]
    assert [(one["label"], one["confidence"]) for one in found] == [("cat", 0.75)]
    np.testing.assert_allclose(found[0]["bounding_box"], [0.25, 0.5, 0.5, 0.1], atol=1e-6)
    assert [row.get("lloss_rank") for row in dataset.rows] == [1, 2, None]
    assert [row.get("lloss_score") for row in dataset.rows] == [1, 0.5, None]
    write_fiftyone(tasks(listed(tmp_path / "c", 1, None)), "fiftyone:set")
    assert [row.get("lloss_rank") for row in dataset.rows] == [None, None, 1]
    assert "lloss_prediction" not in dataset.rows[0]
    assert {id for id, tags in dataset.tags.items() if tags} == {"sc"}


def test_a_dataset_and_samples_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = install(monkeypatch)
    guess = Prediction("cat", scores(0.5))
    (line,) = write_fiftyone(
        tasks(listed(tmp_path / "a", 1, guess), task="classification"), "fiftyone:new"
    )
    assert "1 of them not in it before" in line
    assert datasets["new"].persistent
    (row,) = datasets["new"].rows
    assert row["filepath"] == str(tmp_path / "a")
    assert row["lloss_prediction"].fields == {"label": "cat", "confidence": 0.5}
    with pytest.raises(PoolError, match="'1.png' is not a file of this machine, as FiftyOne"):
        write_fiftyone(tasks(listed("", 1, guess)), "fiftyone:new")


def test_masks_and_joints_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = install(monkeypatch)
    mask = ClassMask(np.array([[0, 1], [255, 1]], np.uint8), ("sky", "sea"))
    image = listed(tmp_path / "a", 1, Prediction(mask, scores(0.5, 0.5)))
    write_fiftyone(tasks(image, task="segmentation", classes=mask.names), "fiftyone:masks")
    (row,) = datasets["masks"].rows
    assert row["lloss_prediction"].fields["mask"].tolist() == [[1, 2], [0, 2]]
    assert datasets["masks"].mask_targets == {"lloss_prediction": {1: "sky", 2: "sea"}}
    joints = np.array([[20, 15], [0, 0]], np.float32)
    person = PersonLabel("a", None, ("nose", "eye"), joints, np.array([True, False]))
    found = Prediction(person, scores(0.5, 0.0))
    image = listed(tmp_path / "a", 1, found, found)
    write_fiftyone(tasks(image, task="pose", classes=person.names), "fiftyone:pose")
    first, _ = datasets["pose"].rows[0]["lloss_prediction"].fields["keypoints"]
    assert first.fields["points"][0] == [0.5, 0.5] and math.isnan(first.fields["points"][1][0])
    skeleton = datasets["pose"].skeletons["lloss_prediction"]
    assert skeleton.fields["labels"] == ["nose", "eye"]


def test_a_selection_is_written_by_its_name(
    done: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = install(monkeypatch)
    words = ["select", done.cycles / "001/scores", "-k", 3]
    result = call(capsys, *words, "-o", "fiftyone:picks", code=0)
    assert "fiftyone:picks: 3 samples have the tag" in result.err
    found = datasets["picks"].rows
    assert [row["lloss_rank"] for row in found] == [1, 2, 3]
    assert all(Path(row["filepath"]).is_file() for row in found)
    assert all(row["lloss_prediction"].fields["label"] for row in found)
    result = call(capsys, *words, "-o", "fiftyone:picks", "--format", "coco", code=2)
    assert "has a format of its own: leave --format out" in result.err
    result = call(capsys, *words, "-o", "fiftyone:picks", "--copy-images", code=2)
    assert "copy_images: a dataset of FiftyOne has no copies; leave it out" in result.err


def test_a_database_that_fails_is_named() -> None:
    named = pytest.raises(PoolError, match="fiftyone:cells: FiftyOne's database cannot.*: gone")
    with named, using_database("fiftyone:cells"):
        raise OSError("gone")
