"""A head on networks from outside: taps, outputs, tasks of one's own, and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import lloss
from lloss.errors import SettingsError
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD

from ..outside_networks import (
    DepthLoss,
    DepthNet,
    ModelOutput,
    TimmNet,
    TwoStages,
    ViTForImageClassification,
)
from ..packages import here

TARGETS = torch.tensor([0, 2, 1, 1])


def _images(size: int = 32) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))


def _hooked(network: nn.Module, names: list[str], images: Tensor) -> list[Tensor]:
    """The named modules' outputs, by hooks of the test's own."""
    found: list[Any] = []
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _i, out: found.append(out))
        for name in names
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return [out[0] if isinstance(out, tuple) else out for out in found]


def test_a_resnet_of_torchvision_gives_its_output_and_the_heads_prediction() -> None:
    network = torchvision.models.resnet18(num_classes=3).eval()
    images = _images()
    alone = network(images)
    model = lloss.attach(network, classes=["a", "b", "c"], size=32)
    assert [tap.module for tap in model.taps] == ["layer1", "layer2", "layer3", "layer4"]
    assert not model.training and "layer3 (256)" in repr(model)
    out, predicted = model(images)
    assert torch.equal(out, alone) and predicted.shape == (4,)
    maps = _hooked(network, [tap.module for tap in model.taps], images)
    head: Any = model.head
    inputs = [*(m.mean((2, 3)) for m in maps), F.log_softmax(out, 1).sort(descending=True).values]
    hidden = [F.relu(x @ layer.weight.T + layer.bias) for x, layer in zip(inputs, head.inputs)]
    expected = torch.cat(hidden, 1) @ head.output.weight[0] + head.output.bias
    assert torch.allclose(predicted, expected, atol=1e-4)
    losses = model.loss_per_image(out, TARGETS)
    assert torch.allclose(losses, F.cross_entropy(out, TARGETS, reduction="none"))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, logits.sum()),
        lambda logits: {"aux": logits.sum(1), "logits": logits},
        lambda logits: {"prediction": logits},
        lambda logits: ModelOutput(loss=None, logits=logits),
    ],
)
def test_logits_are_found_in_tuples_dicts_and_output_classes(
    wrap: Callable[[Tensor], Any],
) -> None:
    model = lloss.attach(TwoStages(3, wrap), size=16)
    assert model.classes == ("0", "1", "2")
    out, _ = model(_images(16))
    assert type(out) is type(wrap(torch.zeros(1, 3)))
    plain = _hooked(model.network, ["last"], _images(16))[0]
    expected = F.cross_entropy(plain, TARGETS, reduction="none")
    assert torch.allclose(model.loss_per_image(out, TARGETS), expected)


@pytest.mark.parametrize(("blocks", "at"), [(6, [0, 2, 3, 5]), (2, [0, 1])])
def test_a_transformer_of_hugging_face_is_tapped_at_its_layers(blocks: int, at: list[int]) -> None:
    model = lloss.attach(ViTForImageClassification(blocks))  # its config has the size
    assert (model.preparation.image.height, model.preparation.image.width) == (16, 16)
    assert [tap.module for tap in model.taps] == [f"encoder.layer.{place}" for place in at]
    assert {(tap.layout, tap.channels) for tap in model.taps} == {("NTC", 16)}
    features = model.tapped.features(_images(16))
    maps = _hooked(model.network, [tap.module for tap in model.taps], _images(16))
    for found, tokens in zip(features.pooled, maps, strict=True):
        assert torch.allclose(found, tokens.mean(1), atol=1e-6)


def test_the_config_of_hugging_face_names_the_classes() -> None:
    network = ViTForImageClassification()
    network.config.id2label = {2: "owl", 1: "dog", 0: "cat"}
    assert lloss.attach(network).classes == ("cat", "dog", "owl")
    assert lloss.attach(network, classes=["a", "dog", "owl"]).classes == ("a", "dog", "owl")
    with pytest.raises(SettingsError, match="class 1 is 'owl', by the network's config.id2label"):
        lloss.attach(network, classes=["cat", "owl", "dog"])
    for labels in ({0: "cat", 1: "dog"}, {0: "cat", 1: "cat", 2: "owl"}, {0: "x", 1: "y", 3: "z"},
                   {n: f"LABEL_{n}" for n in range(3)}, None):  # fmt: skip
        network.config.id2label = labels
        assert lloss.attach(network).classes == ("0", "1", "2")


def test_timms_feature_info_names_the_taps_and_its_config_the_images() -> None:
    model = lloss.attach(TimmNet())
    assert [(t.module, t.channels) for t in model.taps] == [
        ("blocks.0", 6), ("blocks.1", 8), ("blocks.2", 10),
    ]  # fmt: skip
    assert model.preparation.image == lloss.ImageSpec(24, 24)
    assert (model.preparation.mean, model.preparation.std) == ((0.5,) * 3, (0.25,) * 3)
    other = lloss.attach(TimmNet(), size=(16, 32), mean=IMAGENET_MEAN, std=IMAGENET_STD, fit="pad")
    assert other.preparation.image == lloss.ImageSpec(16, 32, "pad")
    assert other.preparation.mean == IMAGENET_MEAN
    network = TimmNet()
    network.pretrained_cfg |= {"interpolation": "bicubic", "crop_pct": 0.875}
    followed = lloss.ImageSpec(24, 24, share=0.875, resample="bicubic")
    assert lloss.attach(network).preparation.image == followed
    given = lloss.attach(network, share=1, resample="bilinear").preparation.image
    assert given == lloss.ImageSpec(24, 24)
    padded = lloss.attach(network, fit="pad").preparation.image
    assert padded == lloss.ImageSpec(24, 24, "pad", resample="bicubic")
    network.pretrained_cfg |= {"interpolation": "random", "crop_mode": "squash"}
    assert lloss.attach(network).preparation.image == lloss.ImageSpec(24, 24)
    network.feature_info = [{**row, "reduction": 16} for row in network.feature_info]
    assert [t.module for t in lloss.attach(network).taps] == ["blocks.0", "blocks.1", "blocks.2"]


def test_a_task_of_ones_own_needs_a_loss_alone() -> None:
    class Loss:
        def loss_per_image(self, output: Any, targets: Tensor) -> Tensor:
            return (output["depth"].mean((1, 2)) - targets).abs()

    model = lloss.attach(DepthNet(), task=Loss(), size=16)
    assert (model.task, model.classes, model.objective.outputs(None)) == ("Loss", (), {})
    out, predicted = model(_images(16))
    expected = (out["depth"].mean((1, 2)) - TARGETS).abs()
    assert torch.equal(model.loss_per_image(out, TARGETS), expected) and predicted.shape == (4,)
    more = lloss.attach(DepthNet(), task=DepthLoss(), size=16)
    assert more.objective.summary_size == 2
    assert more.objective.outputs(out)["mean_depth"].shape == (4,)


def test_a_gradient_ends_at_the_taps_unless_asked_for() -> None:
    model = lloss.attach(TwoStages(), size=16)
    for stop, reached in ((True, False), (False, True)):
        model.zero_grad()
        out, predicted = model(_images(16), stop_gradient=stop)
        lloss.losses.soft_pairs(predicted, model.loss_per_image(out, TARGETS)).backward()
        grads = [p.grad is not None and bool(p.grad.any()) for p in model.network.parameters()]
        assert any(grads) is reached
        assert all(p.grad is not None for p in model.head.parameters())


def test_attaching_leaves_weights_and_modes_alone_and_replaces_an_earlier_head() -> None:
    network = TwoStages()
    network.second.eval()  # a frozen part
    before = {name: value.clone() for name, value in network.state_dict().items()}
    earlier = lloss.attach(network, size=16)
    model = lloss.attach(network, size=16, taps=["first"])
    assert network.training and not network.second.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert sum(len(module._forward_hooks) for module in network.modules()) == 1
    assert model(_images(16))[1].shape == (4,)
    with pytest.raises(RuntimeError, match="attach again"):
        earlier(_images(16))


class _Whole:
    def loss_per_image(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(output, targets)


class _Reserved(_Whole):
    def outputs(self, output: Tensor) -> dict[str, Tensor]:
        return {"loss": output[:, 0]}


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (TwoStages(), {"taps": ["sceond"]}, r"tap 'sceond'.*second.*first"),
        (TwoStages(), {"size": 0}, "size = 0: give the input's side"),
        (TwoStages(), {"classes": ["a", "b"]}, "2 names for a network of 3 outputs"),
        (TwoStages(), {"classes": ["a", "b", "a"]}, "'a' is named twice"),
        (TwoStages(), {"task": "clasification"}, "choose one of classification"),
        (TwoStages(), {"task": "segmentation"}, r"needs logits \[N, classes, H, W\].*\[2, 3\]"),
        (TwoStages(), {"task": "pose", "classes": ["ankle"]}, "does not fit the network's output"),
        (TwoStages(), {"task": "pose"}, "name the classes"),
        (TwoStages(), {"task": object()}, r"loss_per_image\(output, targets\)"),
        (TwoStages(), {"task": _Reserved()}, "the output 'loss': every graph has one"),
        (TwoStages(), {"std": (1, 0, 1)}, "three numbers, each above 0"),
        (
            TwoStages(),
            {"keep_embedding": "all"},
            "keep_embedding = 'all': choose one of trained, pr",
        ),
        (DepthNet(), {}, "gives a dict with depth, scale for two images; give an object"),
        (nn.Linear(3, 3), {"size": 8}, "cannot take images of 8×8 pixels.*; give a size that"),
    ],
)
def test_mistakes_are_named(network: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        lloss.attach(network, **{"size": 16, **options})


def test_one_loss_for_the_whole_batch_is_refused() -> None:
    model = lloss.attach(TwoStages(), task=_Whole(), size=16)
    out, _ = model(_images(16))
    with pytest.raises(SettingsError, match=r"gave \[\]: return one loss per image"):
        model.loss_per_image(out, TARGETS)


def test_a_network_by_name_is_built_for_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from tests.outside_networks import TwoStages as Two\ndef own(classes): return Two(classes)"
    )
    here(tmp_path, monkeypatch, "nets", code)
    model = lloss.attach("nets:own", classes=["a", "b"], size=16)
    assert isinstance(model.network, TwoStages)
    assert model(_images(16))[0].shape == (4, 2) and model.classes == ("a", "b")
    for network, message in (("nets:own", "name the classes"), ("resnet18", "write timm:NAME")):
        with pytest.raises(SettingsError, match=message):
            lloss.attach(network, classes=() if network == "nets:own" else ["a", "b"])


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("resnet18", "layer1 layer2 layer3 layer4"),
        ("tf_efficientnet_lite0", "blocks.1 blocks.2 blocks.4 blocks.6"),
        ("vit_tiny_patch16_224", "blocks.2 blocks.5 blocks.8 blocks.11"),
    ],
)
def test_real_networks_of_timm(name: str, taps: str) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=3)
    model = lloss.attach(network)
    assert [tap.module for tap in model.taps] == taps.split()
    config = network.pretrained_cfg
    assert model.preparation.mean == tuple(config["mean"])
    assert (3, model.preparation.image.height, model.preparation.image.width) == config[
        "input_size"
    ]


def test_real_networks_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        image_size=32, num_labels=3,
    )  # fmt: skip
    model = lloss.attach(transformers.ViTForImageClassification(config)).eval()
    assert [(tap.layout, tap.channels) for tap in model.taps] == [("NTC", 32)] * 4
    out, predicted = model(_images(32))
    expected = F.cross_entropy(out.logits, TARGETS, reduction="none")
    assert torch.equal(model.loss_per_image(out, TARGETS), expected) and predicted.shape == (4,)
