from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.modeling.classifiers import build_classifier
from lloss.modeling.taps import Tap, find_taps

NARROW = "resnet10-cifar-narrow"


def _shapeless(name: str) -> nn.Module:
    """A network without memory for its weights: enough to find taps, and quick to make."""
    with torch.device("meta"):
        return build_classifier(name, 5)


def _outputs(network: nn.Module, size: int) -> dict[str, Tensor]:
    """Every module's tensor output, in the order made."""
    made: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            made.pop(name, None)
            made[name] = output

    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: keep(name, output))
    device = next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(2, 3, size, size, device=device))
    return made


@pytest.mark.parametrize(
    ("name", "size", "stages"),
    [("resnet18", 64, "layer1 layer2 layer3 layer4"),
     ("resnet18-cifar", 32, "stages.0 stages.1 stages.2 stages.3"),
     ("resnet18-cifar", 8, "stages.0 stages.1 stages.2 stages.3")],
)  # fmt: skip
def test_a_resnet_is_tapped_at_its_four_stages(name: str, size: int, stages: str) -> None:
    taps = find_taps(_shapeless(name), (size, size))
    assert [tap.module for tap in taps] == stages.split()
    assert [tap.channels for tap in taps] == [64, 128, 256, 512]
    assert {tap.layout for tap in taps} == {"NCHW"}


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 64), ("resnet18", 96), ("mobilenet_v3_small", 64), ("efficientnet_b0", 64),
     ("convnext_tiny", 64), ("densenet121", 64)],
)  # fmt: skip
def test_a_convolutional_network_is_tapped_at_the_last_map_of_its_four_smallest_resolutions(
    name: str, size: int
) -> None:
    network = _shapeless(name)
    taps = find_taps(network, (size, size))
    outputs = _outputs(network, size)
    sides = [outputs[tap.module].shape[-1] for tap in taps]
    assert sides == [size // reduction for reduction in (4, 8, 16, 32)]
    order = list(outputs)
    for tap, side in zip(taps, sides, strict=True):
        assert tap.layout == "NCHW"
        assert tap.channels == outputs[tap.module].shape[1]
        later = order[order.index(tap.module) + 1 :]
        siblings = [name for name in later if name.count(".") == tap.module.count(".")]
        assert [name for name in siblings if outputs[name].shape[2:] == (side, side)] == []


def test_a_vision_transformer_is_tapped_at_the_last_block_of_each_quarter() -> None:
    taps = find_taps(_shapeless("vit_b_16"), (224, 224))
    stem = "encoder.layers.encoder_layer_"
    assert [tap.module for tap in taps] == [stem + str(block) for block in (2, 5, 8, 11)]
    assert {(tap.layout, tap.channels) for tap in taps} == {("NTC", 768)}


def test_a_swin_transformer_is_tapped_at_its_stages_with_channels_last() -> None:
    network = _shapeless("swin_t")
    taps = find_taps(network, (64, 64))
    assert [tap.channels for tap in taps] == [96, 192, 384, 768]
    assert [tap.layout for tap in taps][:3] == ["NHWC"] * 3
    outputs = _outputs(network, 64)
    for tap, side in zip(taps, (16, 8, 4, 2), strict=True):
        shape = tuple(outputs[tap.module].shape)
        expected = (2, side, side, tap.channels) if tap.layout == "NHWC" else (2, tap.channels)
        assert shape[: len(expected)] == expected
        assert shape.count(side) >= 2


def test_a_map_as_deep_as_it_is_wide_takes_the_layout_of_the_others() -> None:
    taps = find_taps(_shapeless("swin_t"), (384, 384))  # its first stage gives [N, 96, 96, 96]
    assert (taps[0].module, taps[0].layout) == ("features.1", "NHWC")
    assert [tap.channels for tap in taps] == [96, 192, 384, 768]


def test_named_modules_are_tapped_in_the_order_given() -> None:
    taps = find_taps(build_classifier(NARROW, 3), (32, 32), ("stages.2", "stem.0"))
    assert [(tap.module, tap.channels) for tap in taps] == [("stages.2", 64), ("stem.0", 16)]


@pytest.mark.parametrize("name", ["stages.9", "", "classifier", "layer1"])
def test_a_name_without_a_feature_map_is_refused_with_some_that_have_one(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"tap '{name}'.*among others: .*stages\.3"):
        find_taps(build_classifier(NARROW, 3), (32, 32), (name,))
    with pytest.raises(SettingsError, match=r"stages\.1.*named twice"):
        find_taps(build_classifier(NARROW, 3), (32, 32), ("stages.1", "stages.1"))
    with pytest.raises(SettingsError, match="no feature map"):
        find_taps(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)), (8, 8))


def test_a_size_the_network_cannot_take_is_refused() -> None:
    for name, size in (("vit_b_16", 64), ("alexnet", 32)):
        with pytest.raises(SettingsError, match=str(size)):
            find_taps(_shapeless(name), (size, size))


@pytest.mark.parametrize("training", [True, False])
def test_finding_taps_leaves_the_network_as_it_was(training: bool) -> None:
    network = build_classifier(NARROW, 3).train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    draws = torch.get_rng_state()
    find_taps(network, (32, 32))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training is training
    assert torch.equal(torch.get_rng_state(), draws)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("layout", "shape", "spots"),
    [
        ("NCHW", (2, 5, 3, 4), [(slice(None), y, x) for y in range(3) for x in range(4)]),
        ("NHWC", (2, 3, 4, 5), [(y, x) for y in range(3) for x in range(4)]),
        ("NTC", (2, 7, 5), [(t,) for t in range(7)]),
    ],
)
def test_pooling_is_the_mean_over_positions(
    layout: Any, shape: tuple[int, ...], spots: list[Any]
) -> None:
    output = torch.randn(shape)
    pooled = Tap("x", layout, 5).pool(output)
    assert pooled.shape == (2, 5)
    for image in range(2):
        mean = sum(output[image][spot] for spot in spots) / len(spots)
        assert torch.allclose(pooled[image], torch.as_tensor(mean), atol=1e-6)


class _Wide(nn.Module):
    """Maps of a wide image, channels first, then last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.last = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(images).permute(0, 2, 3, 1)).mean((1, 2))
        return logits


def test_the_layout_of_a_wide_images_map_is_reported_by_its_aspect() -> None:
    taps = find_taps(_Wide(), (16, 48), ("first", "last"))
    assert taps == (Tap("first", "NCHW", 6), Tap("last", "NHWC", 10))
