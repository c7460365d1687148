"""Simulations of tasks whose labels have places, on a frozen network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lloss.cli.main import main
from lloss.simulation import maps_learner
from lloss.simulation.results import read_rows
from lloss.training import head_training
from tests.outside_networks import TwoStages

SIDE, COUNT = 32, 24


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train for a moment."""
    monkeypatch.setattr(head_training, "STEPS", 5)
    monkeypatch.setattr(maps_learner, "STEPS", 5)
    yield


def _images(folder: Path) -> list[str]:
    folder.mkdir()
    random = np.random.default_rng(0)
    names = [f"{row:02d}.png" for row in range(COUNT)]
    for name in names:
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return names


def _detection(folder: Path) -> list[str]:
    images = [
        {"id": row, "file_name": name, "width": SIDE, "height": SIDE}
        for row, name in enumerate(_images(folder))
    ]
    boxes = [
        {"id": row, "image_id": row, "category_id": 1 + row % 2, "bbox": [2, 2, 20, 12 + row % 5]}
        for row in range(COUNT)
    ]
    kinds = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": boxes, "categories": kinds}
    (folder.parent / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    return [str(folder), "--labels", str(folder.parent / "coco.json")]


def _segmentation(folder: Path) -> list[str]:
    masks = folder.parent / "masks"
    masks.mkdir()
    for row, name in enumerate(_images(folder)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[: 8 + row % 9] = 1
        Image.fromarray(mask).save(masks / name)
    return [str(folder), "--labels", str(masks)]


def _pose(folder: Path) -> list[str]:
    persons = [
        {"id": row, "image_id": row, "category_id": 1, "bbox": [4, 4, 24, 24],
         "keypoints": [8, 8, 2, 20, 10 + row % 9, 2], "num_keypoints": 2}
        for row in range(COUNT)
    ]  # fmt: skip
    images = [
        {"id": row, "file_name": name, "width": SIDE, "height": SIDE}
        for row, name in enumerate(_images(folder))
    ]
    kinds = [{"id": 1, "name": "person", "keypoints": ["nose", "tail"], "skeleton": []}]
    content = {"images": images, "annotations": persons, "categories": kinds}
    (folder / "keypoints.json").write_text(json.dumps(content), encoding="utf-8")
    return [str(folder / "keypoints.json")]


MAKE = {"detection": _detection, "segmentation": _segmentation, "pose": _pose}
METRIC = {"detection": "map", "segmentation": "miou", "pose": "pck"}


def _options(tmp_path: Path, task: str, *more: str) -> list[str]:
    torch.manual_seed(0)
    torch.save(TwoStages(3).state_dict(), tmp_path / "weights.pt")
    data = MAKE[task](tmp_path / "images")
    model = "--model=tests.outside_networks:TwoStages"
    return [
        "simulate", *data, f"--task={task}", model, f"--weights={tmp_path / 'weights.pt'}",
        f"--size={SIDE}", "--test=25%", "--initial=6", "-k4", "--cycles=2", "--trials=1", "-j1",
        "-o", str(tmp_path / "out"), *more,
    ]  # fmt: skip


@pytest.mark.parametrize("task", list(MAKE))
def test_each_task_has_a_head_on_frozen_maps(tmp_path: Path, task: str) -> None:
    main(_options(tmp_path, task, "--methods=random,learning-loss,herding,auto"))
    rows = read_rows(tmp_path / "out")
    assert len(rows) == 4 * 2
    for row in rows:
        assert next(iter(row.figures)) == METRIC[task]
        assert (row.head is None) == (row.method == "random")
    first = [row.figures for row in rows if row.cycle == 0]
    assert all(figures == first[0] for figures in first)


def test_a_simulation_on_maps_continues_as_it_would_have_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(tmp_path, "segmentation", "--methods=herding", "--scenario=redundant:2")
    main(options)
    whole = read_rows(tmp_path / "out")
    lines = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines(True)
    (tmp_path / "out" / "results.jsonl").write_text(lines[0], encoding="utf-8")

    def refused(*args: Any) -> Any:
        raise AssertionError("the features were computed again")

    from lloss.simulation.frozen_maps import FrozenMapsNetwork

    monkeypatch.setattr(FrozenMapsNetwork, "features", refused)
    main(options)
    again = read_rows(tmp_path / "out")
    assert [row.figures for row in again] == [row.figures for row in whole]


@pytest.mark.parametrize("method", ["bald", "tod", "badge"])
def test_methods_that_need_a_classifier_are_refused(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(_options(tmp_path, "segmentation", f"--methods={method}"))
    assert f"method '{method}': needs" in capsys.readouterr().err
