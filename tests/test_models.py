from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from lloss.errors import SettingsError
from lloss.models import build_classifier, default_size
from lloss.models.resnet_cifar import resnet18

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


def test_each_stage_but_the_first_halves_the_resolution() -> None:
    with torch.device("meta"):
        network, x = resnet18(10), torch.zeros(2, 3, 32, 32)
        x = network.stem(x)
        shapes = [tuple((x := stage(x)).shape) for stage in network.stages]
    assert shapes == [(2, 64, 32, 32), (2, 128, 16, 16), (2, 256, 8, 8), (2, 512, 4, 4)]


@pytest.mark.parametrize("name", [NARROW, "resnet18", "squeezenet1_1"])
def test_a_network_gives_one_logit_a_class(name: str) -> None:
    with torch.device("meta"):
        logits = build_classifier(name, 7).eval()(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 128)])
def test_a_network_with_auxiliary_classifiers_gives_logits_alone_in_training_too(
    name: str, size: int
) -> None:
    with torch.device("meta"):
        output = build_classifier(name, 7).train()(torch.zeros(2, 3, size, size))
    assert isinstance(output, torch.Tensor)
    assert output.shape == (2, 7)


def test_the_narrow_network_has_a_third_of_a_million_parameters() -> None:
    assert 250_000 < _parameters(build_classifier(NARROW, 10)) < 350_000


def test_an_unknown_model_is_refused_with_some_known_ones() -> None:
    for name in ("resnet19", "fasterrcnn_resnet50_fpn", "", "raft_small"):
        with pytest.raises(SettingsError, match="unknown; choose resnet18-cifar"):
            build_classifier(name, 2)


def test_the_default_size_is_that_of_the_models_usual_images() -> None:
    assert default_size("resnet18-cifar") == default_size(NARROW) == 32
    assert default_size("resnet18") == 224


def test_weights_of_a_file_are_taken(tmp_path: Path) -> None:
    saved = build_classifier(NARROW, 3).state_dict()
    torch.save(saved, tmp_path / "w.pt")
    loaded = build_classifier(NARROW, 3, str(tmp_path / "w.pt")).state_dict()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


def test_a_last_layer_for_other_classes_starts_afresh_and_nothing_else(tmp_path: Path) -> None:
    saved = build_classifier(NARROW, 3).state_dict()
    torch.save(saved, tmp_path / "w.pt")
    loaded = build_classifier(NARROW, 5, str(tmp_path / "w.pt")).state_dict()
    assert loaded["classifier.weight"].shape[0] == 5
    body = [key for key in saved if not key.startswith("classifier")]
    assert all(torch.equal(loaded[key], saved[key]) for key in body)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(build_classifier("squeezenet1_1", 3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(SettingsError, match="do not fit resnet10-cifar-narrow"):
        build_classifier(NARROW, 3, str(tmp_path / "w.pt"))


def test_weights_whose_first_layer_differs_are_refused(tmp_path: Path) -> None:
    """The last layer alone may start afresh; a random stem below trained stages is an accident."""
    saved = build_classifier(NARROW, 3).state_dict()
    saved["stem.0.weight"] = saved["stem.0.weight"][:, :1]  # one of grey images
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(SettingsError, match=r"stem\.0"):
        build_classifier(NARROW, 3, str(tmp_path / "w.pt"))


def test_weights_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"stem.0.weight": 3}, tmp_path / "number.pt")
    for name in ("text.pt", "list.pt", "number.pt"):
        with pytest.raises(SettingsError, match=name):
            build_classifier(NARROW, 3, str(tmp_path / name))


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        build_classifier(NARROW, 3, str(tmp_path / "none.pt"))


def test_imagenet_weights_of_our_own_networks_do_not_exist() -> None:
    with pytest.raises(SettingsError, match="no ImageNet weights"):
        build_classifier(NARROW, 3, "imagenet")
