"""The task of docs/tasks.md, installed as the package that it describes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lloss.entry_points import TASKS as GROUP
from lloss.errors import SettingsError
from lloss.tasks import TASKS, get_task, task_names
from lloss.tasks.presets import resolve_settings

from ..command_line import call
from ..packages import here, install

TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
(TOML,), (CODE,) = (
    re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) for kind in ("toml", "python")
)


def _installed(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> None:
    project = tomllib.loads(TOML)["project"]
    points = {**project["entry-points"], **changes.pop("points", {})}
    install(folder, patch, project["name"], {"lloss_tags": CODE, **changes}, points)


@pytest.fixture
def beaches(tmp_path: Path) -> Path:
    """A folder of 24 images with the tags red, green, both or blue, and tags.csv."""
    random, rows = np.random.default_rng(0), ["id,label"]
    (tmp_path / "photos").mkdir()
    for number in range(24):
        tags = [["red"], ["green"], ["green", "red"], ["blue"]][number % 4]
        pixels = random.integers(0, 80, (8, 8, 3))
        for tag in tags:
            pixels[..., ("red", "green", "blue").index(tag)] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"photos/{number:02d}.png")
        rows.append(f"{number:02d}.png,{';'.join(tags)}")
    (tmp_path / "tags.csv").write_text("\n".join(rows))
    return tmp_path


def test_the_task_of_a_package_goes_through_all_commands(
    beaches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _installed(tmp_path / "site", monkeypatch)
    assert task_names() == (*TASKS, "tags")
    monkeypatch.chdir(beaches)
    data = ["photos", "--labels", "tags.csv"]
    out = call(capsys, "train", *data, "--task=tags", "-o", "run", *tiny_options, code=0).out
    assert "24 images of 3 classes" in out
    table = call(capsys, "evaluate", "run", *data, code=0).out
    assert "right_tags" in table and "ranking accuracy" in table
    call(capsys, "export", "run", "-o", "model.onnx", code=0)
    assert "tags" in call(capsys, "info", "model.onnx", code=0).out
    call(capsys, "score", "model.onnx", "photos", "-o", "scores", code=0)
    assert len(call(capsys, "select", "scores", "-k", 3, code=0).out.splitlines()) == 3


def test_the_task_of_a_package_trains_networks_from_outside(
    beaches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _installed(tmp_path / "site", monkeypatch)
    here(beaches, monkeypatch, "nets", "from tests.outside_networks import TwoStages as Two\n"
         "def own(classes):\n    return Two(classes, lambda logits: (logits, None))")  # fmt: skip
    options = [*tiny_options, "--task=tags", "--model=nets:own", "--size=16"]
    call(capsys, "train", "photos", "--labels=tags.csv", "-o", "run", *options, code=0)
    assert "right_tags" in call(capsys, "evaluate", "run", "photos", "--labels=tags.csv").out


def test_negative_losses_are_refused_by_one_process_and_by_the_leading_one_of_several(
    beaches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str]
) -> None:
    site = tmp_path / "site"
    _installed(
        site,
        monkeypatch,
        lloss_tags=CODE.replace("return cross_entropy", "return -cross_entropy", 1),
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    words = ["-m", "lloss", "train", "photos", "--labels=tags.csv", "--task=tags", *tiny_options]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for start in ([], several):
        command = [sys.executable, *start, *words, "-o", "run", "--device=cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=beaches)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("lloss: ")]
        assert done.returncode and line.startswith("lloss: a loss of -")
        assert line.endswith(
            'soft-pairs takes losses from 0 on; pass head_loss="margin" (--head-loss margin)'
        )
        assert "lloss/training" not in done.stderr and not (beaches / "run/checkpoint.pt").exists()


def test_the_loss_and_the_entropy_of_the_documented_task_are_their_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed(tmp_path / "site", monkeypatch)
    objective = get_task("tags").objective(resolve_settings("default", task="tags"), ("a", "b"))
    logits, targets = torch.tensor([[0.5, -2.0]]), torch.tensor([[1.0, 0.0]])
    p = torch.sigmoid(logits)[0].double()
    loss = -(p[0].log() + (1 - p[1]).log()) / 2
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum()
    assert objective.loss_per_image(logits, targets).item() == pytest.approx(loss.item())
    assert objective.outputs(logits)["entropy"].item() == pytest.approx(entropy.item())


def test_an_unknown_task_is_refused_with_all_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed(tmp_path / "site", monkeypatch)
    with pytest.raises(SettingsError, match="task 'sorting': choose one of .*segmentation, tags"):
        get_task("sorting")


@pytest.mark.parametrize(
    ("code", "point", "message"),
    [
        ("", "broken:TASK", "'tags': the entry point broken:TASK of the package lloss-tags cannot "
         "be imported: AttributeError: .*TASK"),
        ("import a_package_of_nobody", "broken:TASK", "ModuleNotFoundError: No module named"),
        ("raise SystemExit", "broken:TASK", "cannot be imported: SystemExit; repair or uninstall"),
        ("TASK = 3", "broken:TASK", "is to name a Task object of lloss.tasks.task, it names 3"),
        ("", "lloss_tags:Tags", "it names a class; register an object of it"),
        ("import lloss_tags\nclass T(lloss_tags.Tags):\n    name = 'labels'\nTASK = T()",
         "broken:TASK", "its object has the name 'labels'; register it under that"),
        ("import lloss_tags\ndel lloss_tags.Tags.metric\nTASK = lloss_tags.TASK", "broken:TASK",
         "task 'tags': Tags has no metric; write it"),
    ],
)  # fmt: skip
def test_a_broken_entry_point_is_one_line(
    code: str, point: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {GROUP: {"tags": point}}
    _installed(tmp_path / "site", monkeypatch, broken=code, points=points)
    with pytest.raises(SettingsError, match=message) as caught:
        get_task("tags")
    assert "\n" not in str(caught.value)
    assert get_task("classification").name == "classification"
