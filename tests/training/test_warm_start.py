from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.errors import CheckpointError
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData, load_examples
from lloss.training.warm_start import take_weights


@pytest.fixture
def start(trained: Path) -> Checkpoint:
    return load_checkpoint(trained)


@pytest.fixture
def data(photos: Path, tiny: TrainSettings) -> TrainingData:
    labeled = open_labeled(str(photos))
    return load_examples(labeled, ("bright", "dark", "red"), tiny, Problems())[0]


def _warm(
    start: Checkpoint, settings: TrainSettings, data: TrainingData
) -> tuple[dict[str, Tensor], str]:
    """The first weights and the line on them."""
    trainer = Trainer(settings, data, "cpu")
    line = take_weights(trainer.model, start, settings, data.classes)
    return trainer.model.state_dict(), line


def test_a_warm_start_takes_all_weights_of_the_same_network(
    start: Checkpoint, data: TrainingData, tiny: TrainSettings
) -> None:
    weights, line = _warm(start, tiny, data)
    assert all(torch.equal(weights[k], v) for k, v in start.state["model"].items())
    layers = {name.rpartition(".")[0] for name in weights}
    assert line.startswith(f"warm start: {len(layers)} of {len(layers)} layers are those of")
    assert "fresh" not in line


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 4},
        {"head_summary": False},
        {"taps": ("stages.3", "stages.2", "stages.1", "stages.0")},
    ],
)
def test_a_head_of_other_inputs_starts_fresh(
    start: Checkpoint, data: TrainingData, tiny: TrainSettings, changes: dict[str, Any]
) -> None:
    weights, line = _warm(start, dataclasses.replace(tiny, **changes), data)
    old = start.state["model"]
    assert all(torch.equal(weights[k], old[k]) for k in weights if k.startswith("network."))
    assert "; fresh: head." in line


@pytest.mark.parametrize("names", [("new a", "new b", "new c"), ("bright", "dark")])
def test_other_classes_get_a_fresh_classifier(
    start: Checkpoint, data: TrainingData, tiny: TrainSettings, names: tuple[str, ...]
) -> None:
    weights, line = _warm(start, tiny, dataclasses.replace(data, classes=names))
    old, name = start.state["model"], "network.classifier.weight"
    stem = "network.stem.0.weight"
    assert torch.equal(weights[stem], old[stem])
    assert len(weights[name]) == len(names)
    assert not torch.equal(weights[name], old[name][: len(names)])
    assert "fresh: network.classifier" in line


def test_a_warm_start_of_another_or_a_broken_network_is_refused(
    start: Checkpoint, data: TrainingData, tiny: TrainSettings
) -> None:
    other = dataclasses.replace(tiny, model="resnet18-cifar")
    with pytest.raises(CheckpointError, match="'resnet10-cifar-narrow', not 'resnet18-cifar'"):
        _warm(start, other, data)
    start.state["model"]["network.classifier.bias"][1] = float("nan")
    with pytest.raises(CheckpointError, match="are infinite or NaN"):
        _warm(start, tiny, data)


def test_a_warm_start_keeps_its_own_features_of_before_training(
    start: Checkpoint, data: TrainingData, tiny: TrainSettings, tmp_path: Path
) -> None:
    network = Trainer(tiny, data, "cpu").model.network
    torch.save(network.state_dict(), tmp_path / "w.pt")
    settings = dataclasses.replace(
        tiny, weights=str(tmp_path / "w.pt"), keep_embedding="pretrained"
    )
    weights, line = _warm(start, settings, data)
    prefix = "pretrained.network."
    kept = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    assert kept and all(torch.equal(v, network.state_dict()[k]) for k, v in kept.items())
    layers = {name.rpartition(".")[0] for name in weights if not name.startswith(prefix)}
    assert line.startswith(f"warm start: {len(layers)} of {len(layers)} layers are those of")
