"""Trainings that went wrong are said to have."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.errors import DivergedError
from lloss.modeling.network import TappedNetwork
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import load_checkpoint
from lloss.training.divergence import batch_statistics, doubts, remedy
from lloss.training.evaluation import measure
from lloss.training.run import METRICS, train
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData

MakeData = Callable[..., TrainingData]
Trained: TypeAlias = tuple[Trainer, TrainingData]


@pytest.fixture
def trained_on(tiny: TrainSettings, make_data: MakeData) -> Iterator[Trained]:
    data = make_data()
    trainer = Trainer(dataclasses.replace(tiny, epochs=12), data, "cpu")
    while not trainer.finished:
        trainer.advance()
    yield trainer, data


def epochs(tmp_path: Path, *losses: float) -> Path:
    path = tmp_path / METRICS
    path.write_text("".join(json.dumps({"loss": loss}) + "\n" for loss in losses))
    return path


def norms(model: TappedNetwork) -> list[torch.nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_a_sound_training_raises_no_doubt_and_each_sign_of_failure_one(
    trained_on: Trained, tmp_path: Path
) -> None:
    trainer, data = trained_on

    def lines(*losses: float) -> list[str]:
        return doubts(trainer.model, trainer.settings, data, epochs(tmp_path, *losses))

    assert lines(1.1, 0.1) == []
    (line,) = lines(1.1, 7, 4.8)
    assert "rose, from 1.1 in the first epoch to 4.8 in the last" in line and "--lr" in line
    for norm in norms(trainer.model):
        norm.running_var.fill_(1e-3)  # type: ignore[union-attr]
    (line,) = lines(1.1, 0.1)
    used = measure(trainer.model, trainer.settings, data).mean_loss
    assert line.startswith("batch norm's statistics have not settled: on 24 training images")
    assert f"but {used:.3g} by the running ones" in line and "--batch-size" in line
    assert "lower --lr (it is 0.05)" in line and "\n" not in line
    norms(trainer.model)[0].running_mean.fill_(float("nan"))  # type: ignore[union-attr]
    (line,) = lines(1.1, 0.1)
    assert "but nan by the running ones" in line


def test_looking_by_batch_statistics_changes_nothing(trained_on: Trained) -> None:
    model = trained_on[0].model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(8, 3, 8, 8)
    with torch.no_grad():
        used = model(x).output
        with batch_statistics(model) as there:
            assert there and not torch.allclose(model(x).output, used)
        assert torch.equal(model(x).output, used)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and not any(norm.training for norm in norms(model))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "lower --lr (it is 0.05; try 0.005), or try --optimizer adam with --lr 0.001 or "
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
    monkeypatch.setattr("lloss.training.run.RunWriter.save_if_due", lambda keeper: keeper.save())
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


def test_doubts_are_said(photos: Path, tiny: TrainSettings, tmp_path: Path) -> None:
    said: list[str] = []
    # Running statistics that move by 1 % a step are near their start after 16 of them.
    real = Trainer.__post_init__

    def slow(self: Trainer) -> None:
        real(self)
        for norm in norms(self.model):
            norm.momentum = 1e-4
            norm.running_var.fill_(1e-4)  # type: ignore[union-attr]

    labeled, problems = open_labeled(str(photos)), Problems()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__post_init__", slow)
        train(labeled, tiny, tmp_path / "run", problems=problems, say=said.append)
    assert any(line.startswith("note: batch norm's statistics have not") for line in said)
    (line,) = problems.warnings
    again = Problems()
    train(labeled, tiny, tmp_path / "run", resume=True, problems=again)
    assert again.warnings == [line]  # also where the run was finished before
