from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models.resnet import BasicBlock

from lloss.errors import CheckpointError, SettingsError
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.classifiers import HALVES, SCALED, build_classifier, preparation
from lloss.modeling.network import Normalize
from lloss.modeling.networks.resnet_cifar import resnet18
from lloss.tasks.presets import resolve_settings
from lloss.training.checkpoint import load_checkpoint

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


def test_images_are_prepared_as_those_of_the_weights() -> None:
    sizes = {"inception_v3": 299, "googlenet": 224, "swin_v2_t": 256, "vit_h_14": 518, NARROW: 32}
    assert {name: preparation(name)["size"] for name in sizes} == sizes
    large = resolve_settings("default", model="efficientnet_v2_l")
    assert (large.mean, large.std) == (HALVES, HALVES)
    assert resolve_settings("default", model="resnet18").mean == IMAGENET_MEAN


@pytest.mark.parametrize("name", SCALED)
def test_imagenet_weights_see_images_as_torchvision_scales_them(name: str) -> None:
    settings = resolve_settings("default", model=name)
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    theirs = torchvision_models.get_model(name, transform_input=True, init_weights=False)
    wanted = theirs._transform_input(Normalize(IMAGENET_MEAN, IMAGENET_STD)(images))
    found = Normalize(settings.mean, settings.std)(images)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_checkpoint_of_an_earlier_version_scales_its_input_as_before(
    trained: Path, tmp_path: Path
) -> None:
    content = torch.load(trained / "checkpoint.pt", weights_only=True)
    content["settings"] |= {"flip_test": True, "head_loss": "ranknet"}
    del content["settings"]["clip"], content["settings"]["fresh_lr"]
    content["state"]["totals"]["hits"] = 3.0
    for scaled, mean in ((False, IMAGENET_MEAN), (True, HALVES)):
        content["state"]["transform_input"] = scaled
        torch.save(content, tmp_path / "checkpoint.pt")
        assert load_checkpoint(tmp_path).settings.mean == mean
        assert not load_checkpoint(tmp_path).settings.undecided
        assert load_checkpoint(tmp_path).network().head is not None
    content["settings"]["mean"] = [0.1, 0.1, 0.1]
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: .*train again"):
        load_checkpoint(tmp_path)


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
