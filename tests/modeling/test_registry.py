from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models.resnet import BasicBlock

from lloss.errors import SettingsError
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.networks.resnet_cifar import resnet18
from lloss.modeling.registry import build_classifier, default_size, transforms_input, weights_notes
from lloss.tasks.classification import TASK as CLASSIFICATION
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData

NARROW = "resnet10-cifar-narrow"


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_resnet18_has_its_size_stem_and_stages() -> None:
    with torch.device("meta"):
        network = resnet18(10)
    assert 11_170_000 < _parameters(network) < 11_180_000
    stem = network.stem[0]
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert not any(isinstance(module, nn.MaxPool2d) for module in network.modules())
    assert sum(isinstance(module, BasicBlock) for module in network.modules()) == 8


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 128)])
def test_a_network_with_auxiliary_classifiers_gives_logits_alone_in_training_too(
    name: str, size: int
) -> None:
    with torch.device("meta"):
        output = build_classifier(name, 7).train()(torch.zeros(2, 3, size, size))
    assert isinstance(output, torch.Tensor)
    assert output.shape == (2, 7)


def test_an_unknown_model_is_refused_with_some_known_ones() -> None:
    for name in ("resnet19", "fasterrcnn_resnet50_fpn", "", "raft_small"):
        with pytest.raises(SettingsError, match="unknown; choose resnet18-cifar"):
            build_classifier(name, 2)


def test_a_last_layer_for_other_classes_starts_new_and_nothing_else(tmp_path: Path) -> None:
    saved = build_classifier(NARROW, 3).state_dict()
    torch.save(saved, tmp_path / "w.pt")
    loaded = build_classifier(NARROW, 5, str(tmp_path / "w.pt")).state_dict()
    assert loaded["classifier.weight"].shape[0] == 5
    body = [key for key in saved if not key.startswith("classifier")]
    assert all(torch.equal(loaded[key], saved[key]) for key in body)


def test_weights_that_do_not_fit_or_do_not_exist_are_refused(tmp_path: Path) -> None:
    grey = build_classifier(NARROW, 3).state_dict()
    grey["stem.0.weight"] = grey["stem.0.weight"][:, :1]  # only the last layer may start fresh
    for name, content in (("grey", grey), ("list", [1, 2]), ("number", {"stem.0.weight": 3})):
        torch.save(content, tmp_path / f"{name}.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for name, message in {
        "grey.pt": r"stem\.0", "list.pt": r"list\.pt", "number.pt": r"number\.pt",
        "text.pt": r"text\.pt", "none.pt": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(SettingsError, match=message):
            build_classifier(NARROW, 3, str(tmp_path / name))
    with pytest.raises(SettingsError, match="no ImageNet weights"):
        build_classifier(NARROW, 3, "imagenet")


def test_images_unlike_those_of_the_weights_are_reported() -> None:
    sizes = {"inception_v3": 299, "googlenet": 224, "swin_v2_t": 256, "vit_h_14": 518}
    assert {name: default_size(name) for name in sizes} == sizes
    usual = (IMAGENET_MEAN, IMAGENET_STD)
    assert weights_notes("inception_v3", 299, *usual) == []
    (line,) = weights_notes("inception_v3", 224, *usual)
    assert "of images of 299 pixels, and size is 224" in line
    (line,) = weights_notes("efficientnet_v2_l", 480, *usual)
    assert line.endswith("give --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5")
    assert weights_notes("efficientnet_v2_l", 480, (0.5,) * 3, (0.5,) * 3) == []
    assert len(weights_notes("resnet18", 64, (0.5,) * 3, (0.5,) * 3)) == 2
    assert weights_notes(NARROW, 64, *usual) == []


def test_a_run_reports_of_images_unlike_those_of_its_weights() -> None:
    settings = TrainSettings(model="inception_v3", weights="imagenet", size=128)
    assert len(CLASSIFICATION.notes(settings)) == 1
    assert CLASSIFICATION.notes(replace(settings, weights="none")) == []


def published(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the network's ImageNet weights without a download: random ones, in their shapes."""
    kind = torchvision_models.get_model_weights(name)

    def state(self: object, **_: object) -> dict[str, torch.Tensor]:
        extra = {"aux_logits": True, "init_weights": False}
        made = torchvision_models.get_model(name, weights=None, **extra)
        return made.state_dict()  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "get_state_dict", state)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_imagenet_weights_scale_their_input_as_torchvision_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(name, monkeypatch)
    ours = build_classifier(name, 1000, "imagenet").eval()
    images = torch.rand(2, 3, 8, 8)  # normalised by ImageNet's mean and deviation
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = (images * deviation + mean - 0.5) / 0.5
    torch.testing.assert_close(ours._transform_input(images), wanted)  # type: ignore[operator]
    assert transforms_input(ours) and not transforms_input(build_classifier(name, 2))


def test_a_checkpoint_keeps_how_its_network_scales_its_input(tmp_path: Path) -> None:
    data = TrainingData(
        np.random.default_rng(0).integers(0, 256, (4, 75, 75, 3), np.uint8),
        np.array([0, 1, 0, 1]),
        ("a", "b"),
    )
    settings = TrainSettings(
        model="googlenet", size=75, batch_size=2, epochs=1, amp="off", taps=("conv1", "conv3")
    )
    trainer = Trainer(settings, data, "cpu")
    network = trainer.model.network
    network.transform_input = True  # as ImageNet weights leave it
    Checkpoint(settings, ("a", "b"), 4, "", data.images, trainer.state()).save(tmp_path / "c.pt")
    checkpoint = load_checkpoint(tmp_path / "c.pt")
    again = checkpoint.network()
    assert transforms_input(again.network)
    images = torch.rand(2, 3, 75, 75)
    with torch.no_grad():
        wanted = trainer.model.eval()(images).embedding
        torch.testing.assert_close(again(images).embedding, wanted)
        again.network.transform_input = False
        with pytest.raises(AssertionError):
            torch.testing.assert_close(again(images).embedding, wanted)
    network.transform_input = False
    trainer.load_state(checkpoint.state)
    assert transforms_input(network), "a resumed training goes on with it"
    older = {k: v for k, v in checkpoint.state.items() if k != "transform_input"}
    assert not transforms_input(replace(checkpoint, state=older).network().network)


@pytest.mark.parametrize(("name", "size"), [("vit_b_32", 64), ("maxvit_t", 448)])
def test_a_network_made_for_one_size_is_made_for_the_size_asked_for(name: str, size: int) -> None:
    with torch.device("meta"):
        network = build_classifier(name, 3, size=size).eval()
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_a_size_that_a_network_cannot_be_made_for_is_refused() -> None:
    with pytest.raises(SettingsError, match="size = 50: vit_b_32 cannot be made for it"):
        build_classifier("vit_b_32", 3, size=50)
    with pytest.raises(SettingsError, match="size = 64: maxvit_t cannot be made for it") as found:
        build_classifier("maxvit_t", 3, size=64)
    assert "\n" not in str(found.value)
    with pytest.raises(SettingsError, match="size = 64: the ImageNet weights of vit_b_32 .* 224"):
        build_classifier("vit_b_32", 3, "imagenet", size=64)


@pytest.mark.parametrize("name", ["mnasnet0_5", "efficientnet_b0"])
def test_a_fresh_network_of_few_classes_is_sure_of_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = build_classifier(name, 3)
    with torch.no_grad():
        logits = network.train()(torch.randn(8, 3, 64, 64))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    assert loss < 1.3, "ln 3 is 1.1"
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert min(norm.momentum or 1 for norm in norms) >= 0.1
