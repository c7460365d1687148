"""Trainings that went wrong are said to have."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.errors import DivergedError
from lloss.tasks.train_settings import TrainSettings
from lloss.training import divergence
from lloss.training.checkpoint import load_checkpoint
from lloss.training.divergence import doubts, few_steps_note, remedy
from lloss.training.run import train
from lloss.training.run_folder import METRICS
from lloss.training.trainer import Trainer


@pytest.mark.parametrize(("losses", "doubtful"), [((1.1, 0.1), 0), ((1.1, 7, 4.8), 1), ((), 0)])
def test_a_loss_that_rises_is_doubted(
    losses: tuple[float, ...], doubtful: int, tiny: TrainSettings, tmp_path: Path
) -> None:
    path = tmp_path / METRICS
    path.write_text("".join(json.dumps({"loss": loss}) + "\n" for loss in losses))
    found = doubts(tiny, path)
    assert len(found) == doubtful
    for line in found:
        assert "rose, from 1.1 in the first epoch to 4.8 in the last" in line and "--lr" in line


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "lower --lr (it is 0.05; try 0.005), or try --optimizer adamw with --lr 0.001 or "
             "trained --weights"),
        ({"optimizer": "adam", "weights": "w.pt"}, "lower --lr (it is 0.05; try 0.005)"),
    ],
)  # fmt: skip
def test_the_remedy_is_one_that_is_not_in_use(
    tiny: TrainSettings, changes: dict[str, Any], wanted: str
) -> None:
    assert remedy(dataclasses.replace(tiny, **changes)) == wanted


def test_a_run_that_diverges_keeps_the_checkpoint_before(
    photos: Path, tiny: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lloss.training.run_folder.RunWriter.save_if_due", lambda keeper: keeper.save()
    )
    labeled, run = open_labeled(str(photos)), tmp_path / "run"
    advance, steps = Trainer.advance, 0

    def spoiled(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        found = advance(self)
        if steps == 10:  # after the step, before its checkpoint
            next(self.model.parameters()).data.fill_(float("nan"))
        return found

    monkeypatch.setattr(Trainer, "advance", spoiled)
    with pytest.raises(DivergedError) as refused:
        train(labeled, tiny, run)
    message = str(refused.value)
    assert f"{run / 'checkpoint.pt'} keeps a state before that" in message
    assert "infinite or NaN at step" in message and "\n" not in message
    kept = load_checkpoint(run)
    assert (kept.epoch, kept.state["step"]) == (1, 1)
    assert all(value.isfinite().all() for value in kept.state["model"].values())


def test_a_run_that_diverges_at_once_leaves_no_checkpoint(
    photos: Path, tiny: TrainSettings, tmp_path: Path
) -> None:
    hot = dataclasses.replace(tiny, lr=1e30)
    with pytest.raises(DivergedError, match=r"\. No checkpoint was written$"):
        train(open_labeled(str(photos)), hot, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_doubts_are_said(
    photos: Path, tiny: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergence, "ROSE", 0.0)
    said: list[str] = []
    labeled, problems = open_labeled(str(photos)), Problems()
    train(labeled, tiny, tmp_path / "run", problems=problems, say=said.append)
    assert any(line.startswith("note: the training loss rose") for line in said)
    again = Problems()
    train(labeled, tiny, tmp_path / "run", resume=True, problems=again)
    assert len(again.warnings) == 1  # also where the run was finished before
    assert again.warnings == problems.warnings


def test_few_steps_are_noted_for_networks_with_batch_norm(
    photos: Path, tiny: TrainSettings, tmp_path: Path
) -> None:
    normed = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert few_steps_note(normed, 99).startswith("few steps (99) for a network with batch norm")
    assert few_steps_note(normed, 100) == few_steps_note(nn.Linear(1, 1), 1) == ""
    slow = nn.BatchNorm2d(3, momentum=0.03)  # of torchvision's SSDLite
    note = few_steps_note(nn.Sequential(normed, slow), 333)
    assert note.endswith("for 334 or more, or raise their momentum (it is 0.03)")
    assert few_steps_note(nn.Sequential(normed, slow), 334) == ""
    said, problems = list[str](), Problems()
    labeled = open_labeled(str(photos))
    train(labeled, tiny, tmp_path / "run", problems=problems, say=said.append)
    (line,) = [line for line in said if "batch norm" in line]
    assert line.startswith("few steps (16)") and line in problems.notes
