"""The trainer on a network from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lloss
from lloss.errors import LabelError, SettingsError
from lloss.modeling.attached_model import AttachedModel

from ..outside_networks import DepthLoss, DepthNet, TwoStages

CLASSES = ["bright", "dark", "red"]


def _model(**options: Any) -> AttachedModel:
    torch.manual_seed(0)
    return lloss.attach(TwoStages(), **{"classes": CLASSES, "size": 8, **options})


def test_network_and_head_are_trained_in_place(photos: Path) -> None:
    model = _model().eval()
    network = model.network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    epochs = lloss.fit(model, lloss.open_labeled(photos), epochs=12, lr=0.01, augment="none")
    assert [figures["epoch"] for figures in epochs] == list(range(1, 13))
    assert epochs[-1]["loss"] < 0.6 * epochs[0]["loss"]
    assert model.network is network and not any(m.training for m in model.modules())
    after = model.state_dict()
    assert not any(torch.equal(value, after[name]) for name, value in before.items())


def test_the_same_seed_trains_the_same_network(photos: Path) -> None:
    states = []
    for seed in (1, 1, 2):
        model = _model()
        lloss.fit(model, lloss.open_labeled(photos), epochs=1, seed=seed)
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_mistakes_are_named(photos: Path) -> None:
    labeled = lloss.open_labeled(photos)
    for options, message in (
        ({"size": 9}, "size: attach decides it"),
        ({"epoch": 9}, "fit: unknown setting 'epoch'"),
        ({"augment": "ssd"}, "classification has none, flip"),
    ):
        with pytest.raises(SettingsError, match=message):
            lloss.fit(_model(), labeled, **options)
    with pytest.raises(SettingsError, match="square"):
        lloss.fit(_model(size=(8, 16)), labeled)
    with pytest.raises(SettingsError, match="write the loop"):
        lloss.fit(lloss.attach(DepthNet(), task=DepthLoss(), size=8), labeled)
    with pytest.raises(LabelError, match="'red'"):
        lloss.fit(_model(classes=["bright", "dark", "blue"]), labeled)
