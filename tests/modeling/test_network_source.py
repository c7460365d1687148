"""Networks from outside by name: what is built, and for what images they are made."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lloss.entry_points import MODELS
from lloss.errors import SettingsError
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD, network_source
from lloss.modeling.network_source import (
    LEAST,
    assumptions,
    build_network,
    class_layers,
    is_outside,
    network_input,
    package_versions,
    preparation,
)

from ..outside_networks import TimmNet, TwoStages
from ..packages import here, install

NETS = """
from tests.outside_networks import TimmNet, TwoStages, ViTForImageClassification

def own(classes):
    return TwoStages(classes)

def tokens(classes, blocks=4):
    return ViTForImageClassification(blocks, classes=classes)

def like_timm(classes):
    return TimmNet(classes)
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(tmp_path / "here", monkeypatch, "nets", NETS)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What lloss uses of timm, with one network."""
    record = dict(TimmNet().pretrained_cfg, fixed_input_size=True)
    made: list[dict[str, Any]] = []

    def create_model(name: str, num_classes: int, **options: Any) -> TimmNet:
        made.append(options)
        if "depth" in options:
            raise TypeError("unexpected 'depth'")
        return TimmNet(num_classes)

    def get_pretrained_cfg(name: str) -> Any:
        if "." in name:
            raise RuntimeError("Invalid pretrained tag")
        return SimpleNamespace(to_dict=lambda: record)

    fake = SimpleNamespace(
        __version__="1.0", create_model=create_model, get_pretrained_cfg=get_pretrained_cfg,
        is_model=lambda name: name.partition(".")[0] == "tiny_net",
        list_models=lambda: ["tiny_net", "tiny_nest", "huge"],
        list_pretrained=lambda pattern: ["tiny_net.in1k"], made=made,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", fake)
    network_input.cache_clear()
    return fake


def test_names_with_a_colon_and_registered_ones_are_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {MODELS: dict.fromkeys(("mine", "resnet18", "hourglass2"), "own_nets:own")}
    install(tmp_path / "site", monkeypatch, "my-nets", {"own_nets": NETS}, points)
    assert all(map(is_outside, ("timm:resnet18", "a.b:c", "mine")))
    assert not any(map(is_outside, ("resnet18", "ssd300_vgg16", "hourglass2", "unknown")))
    assert isinstance(build_network("mine", 4), TwoStages)


def test_a_network_of_timm_is_built_for_the_classes(timm: Any) -> None:
    network = build_network("timm:tiny_net", 7, ["drop_rate=0.5"])
    assert network.state_dict()["classifier.weight"].shape == (7, 10)
    assert timm.made == [{"drop_rate": 0.5}]
    found = network_input("timm:tiny_net")
    assert (found.size, found.least, found.assumed) == (24, 24, ())
    assert preparation("timm:tiny_net")["std"] == (0.25, 0.25, 0.25)
    assert preparation("timm:tiny_net", ["img_size=48"])["size"] == 48


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("timm:tiny_nets", [], "timm 1.0 has no 'tiny_nets'; similar are tiny_net, tiny_nest"),
        ("timm:hf-hub:a/b", [], "timm 1.0 has no 'hf-hub:a/b'"),
        ("timm:tiny_net.in2k", [], "no such weights; it has tiny_net.in1k"),
        ("timm:tiny_net", ["depth=3"], "cannot be built with num_classes=3, depth=3: TypeError"),
        ("timm:tiny_net", ["pretrained=true"], "'pretrained' is not for timm's networks"),
        ("timm:tiny_net", ["checkpoint_path=x"], "'checkpoint_path' is not for timm's networks"),
    ],
)
def test_what_timm_cannot_build_is_one_line(
    model: str, args: list[str], message: str, timm: Any
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        build_network(model, 3, args)
    assert "\n" not in str(caught.value)


def test_without_timm_its_networks_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SettingsError, match="'timm:resnet18': needs the package timm: pip install"):
        build_network("timm:resnet18", 3)


def test_a_network_says_what_images_it_is_made_for() -> None:
    found = network_input("nets:like_timm")
    assert (found.size, found.least, found.mean, found.assumed) == (24, 24, (0.5, 0.5, 0.5), ())
    tokens = network_input("nets:tokens", ("blocks=2",))
    assert (tokens.size, tokens.least, tokens.assumed) == (16, 16, ("mean", "std"))
    assert preparation("nets:own") == {"size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    assert network_input("nets:own").least == LEAST


def test_what_is_assumed_and_not_chosen_is_said() -> None:
    chosen = {"size": 64, "mean": IMAGENET_MEAN, "std": (0.5, 0.5, 0.5)}
    line = assumptions("nets:own", (), chosen)
    assert "'nets:own' does not say" in line
    assert "assumed are ImageNet's mean; --mean set others" in line
    whole = assumptions("nets:own", (), preparation("nets:own"))
    assert "224 pixels, ImageNet's mean, its deviation; --size, --mean, --std" in whole
    assert assumptions("nets:like_timm", (), preparation("nets:like_timm")) == ""


def test_the_layers_of_the_classes_are_those_whose_shapes_follow_their_number() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert class_layers("nets:own") == {"last.weight", "last.bias"}
    found = class_layers("nets:tokens", ("blocks=2",))
    assert found == {"classifier.weight", "classifier.bias"}
    torch.manual_seed(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_is_of_a_version_of_its_package() -> None:
    assert package_versions("resnet18") == package_versions("nets:own") == {}
    assert package_versions("torch.nn:Linear")["torch"].startswith(
        torch.__version__.partition("+")[0]
    )


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_the_real_timm(name: str) -> None:
    pytest.importorskip("timm", reason="the real records of timm's networks")
    network_source.network_input.cache_clear()
    found = network_input(f"timm:{name}")
    assert found.size == 224 and not found.assumed
    assert (found.least == 224) == name.startswith("vit")
    assert preparation("timm:vit_tiny_patch16_224", ("img_size=64",))["size"] == 64
    last = build_network(f"timm:{name}", 3).get_classifier()
    assert last.weight.std() < 0.1, "it is sure of nothing before it is trained"
    with pytest.raises(SettingsError, match="has no 'resnet_18'; similar are .*resnet18"):
        build_network("timm:resnet_18", 3)
