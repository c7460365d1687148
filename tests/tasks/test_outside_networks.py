"""Networks from outside in the place of a task's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lloss.errors import SettingsError
from lloss.modeling.network import TappedNetwork
from lloss.tasks import get_task
from lloss.tasks.presets import resolve_settings

from ..packages import here

NETS = """
import torch
from torch import nn
from lloss.modeling.networks.hourglass import build_hourglass
from tests.outside_networks import ModelOutput, TimmNet, TwoStages, ViTForImageClassification

def bare(num_classes):
    return TwoStages(num_classes)

def pair(num_classes):
    return TwoStages(num_classes, lambda logits: (logits, logits))

def auxiliary(num_classes):
    return TwoStages(num_classes, lambda logits: {"out": logits, "aux": logits})

def face(num_classes):
    return ViTForImageClassification(4, classes=num_classes)

def timm_like(num_classes):
    return TimmNet(num_classes)

def unsteady(num_classes):
    return nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), TwoStages(num_classes))

def thousand(num_classes):
    return TwoStages(1000)

def nothing(num_classes):
    return TwoStages(num_classes, lambda logits: {"a": logits, "b": logits})

class Maps(nn.Module):
    def __init__(self, num_classes, shrink=4):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, shrink // 2, 1)
        self.last = nn.Conv2d(8, num_classes, 1)

    def forward(self, images):
        return ModelOutput(logits=self.last(self.two(self.one(images).relu()).relu()))

def hourglass(num_classes):
    return build_hourglass("hourglass1-narrow", num_classes)
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(tmp_path / "here", monkeypatch, "nets", NETS)


def _network(
    model: str, task: str = "classification", classes: tuple[str, ...] = ("a", "b"), **given: Any
) -> TappedNetwork:
    settings = resolve_settings("default", task=task, model=model, **{"size": 16, **given})
    torch.manual_seed(0)
    return get_task(task).network(settings, classes).eval()


@pytest.mark.parametrize("name", ["bare", "pair", "auxiliary", "face"])
def test_a_classifier_gives_logits_whatever_it_returns(name: str) -> None:
    model = _network(f"nets:{name}")
    forward = model(torch.randn(3, 3, 16, 16))
    assert forward.output.shape == (3, 2) and forward.loss is not None
    assert model.objective.outputs(forward.output)["entropy"].shape == (3,)
    assert "network.last.weight" in model.state_dict() or name == "face"


def test_taps_are_found_or_named_by_the_networks_own_names() -> None:
    assert [tap.module for tap in _network("nets:bare").taps] == ["first", "second"]
    assert [tap.module for tap in _network("nets:bare", taps=("second",)).taps] == ["second"]


@pytest.mark.parametrize("shrink", [2, 4])
def test_maps_of_a_lower_resolution_are_enlarged_to_the_inputs(shrink: int) -> None:
    model = _network("nets:Maps", "segmentation", model_args=(f"shrink={shrink}",))
    images = torch.randn(2, 3, 16, 16)
    output = model(images).output
    hooks = list(model.network._forward_hooks)
    model.network._forward_hooks.pop(hooks[0])
    small = model.network(images)["logits"]
    assert small.shape[2:] == (16 // shrink, 16 // shrink) and output.shape == (2, 2, 16, 16)
    wanted = torch.nn.Upsample((16, 16), mode="bilinear", align_corners=False)(small)
    assert torch.allclose(output, wanted)
    losses = model.objective.loss_per_image(output, torch.ones(2, 16, 16, dtype=torch.int64))
    assert losses.shape == (2,)


def test_a_pose_network_from_outside_gives_what_lloss_s_own_do() -> None:
    model = _network("nets:hourglass", "pose", ("ankle", "knee"), size=64)
    assert model(torch.randn(1, 3, 64, 64)).output.shape == (1, 1, 2, 16, 16)


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("nets:thousand", "classification", r"of 2 classes takes \[2, 2\] of two images, the "
         r"network gives \[2, 1000\]"),
        ("nets:nothing", "classification", "the network gives a dict with a, b"),
        ("nets:unsteady", "classification", "an image alone than in a batch.*let '0' use running"),
        ("nets:bare", "segmentation", r"takes \[2, 2, 16, 16\] of two images, .* \[2, 2\]"),
        ("nets:bare", "pose", r"its output, \[2, 2\], is not what pose takes: "),
        ("nets:bare", "detection", r"its output, \[2, 2\], is not what detection takes: "),
    ],
)  # fmt: skip
def test_an_output_that_the_task_does_not_take_is_refused(
    model: str, task: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        _network(model, task)
    assert "\n" not in str(caught.value)


def test_settings_come_from_the_network_and_given_ones_win() -> None:
    settings = resolve_settings("default", model="nets:timm_like")
    assert settings.mean == (0.5, 0.5, 0.5) and settings.model == "nets:timm_like"
    given = resolve_settings("default", model="nets:timm_like", mean=[0, 0, 0])
    assert given.mean == (0, 0, 0)
    sizes = get_task("classification").networks("nets:face").input_sizes(settings)
    assert sizes == (16, 16)
    assert resolve_settings("default", task="segmentation", model="nets:Maps").fit == "stretch"


def test_arguments_are_for_networks_from_outside() -> None:
    with pytest.raises(SettingsError, match="model_args: resnet18 takes none; they are for timm"):
        resolve_settings("default", model_args=("depth=3",))
    with pytest.raises(SettingsError, match="nets:bare takes no 'depth'; it takes nothing"):
        resolve_settings("default", model="nets:bare", model_args=("depth=3",))


def test_layers_of_the_classes_are_found_for_any_network() -> None:
    names = list(_network("nets:pair").network.state_dict())
    made = get_task("classification").networks("nets:pair")
    assert made.class_layers(names) == ("last.weight", "last.bias")


def test_a_state_dict_of_other_classes_leaves_the_last_layer_fresh(tmp_path: Path) -> None:
    saved = _network("nets:bare", classes=("a", "b", "c")).network.state_dict()
    torch.save(saved, tmp_path / "weights.pt")
    model = _network("nets:pair", weights=str(tmp_path / "weights.pt"))
    assert model.start is not None and model.start.left == ("last",)
    taken = model.network.state_dict()
    assert torch.equal(taken["first.0.weight"], saved["first.0.weight"])


def test_training_follows_the_family_and_the_budget_the_task() -> None:
    for task, images in (("classification", 64), ("segmentation", 8)):
        made = get_task(task).networks("nets:Maps")
        recipe = made.recipe(resolve_settings("default", task=task, model="nets:Maps"), False)
        assert (recipe["optimizer"], recipe["batch_size"]) == ("adamw", images)
