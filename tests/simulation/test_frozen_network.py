from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lloss.simulation.frozen_network import FrozenNetwork
from lloss.tasks.train_settings import TrainSettings
from tests.outside_networks import TwoStages

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


class ConvolutionAtTheEnd(nn.Module):
    """A network that ends with a convolution, as SqueezeNet does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.last = nn.Conv2d(12, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(self.second(self.first(images))).mean((2, 3))
        return found


def _settings(tmp_path: Path, network: nn.Module, **changes: Any) -> TrainSettings:
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    model = f"{type(network).__module__}:{type(network).__name__}"
    weights = str(tmp_path / "weights.pt")
    return TrainSettings(model=model, weights=weights, size=16, **changes)


def test_features_are_the_pooled_taps_and_what_the_last_layer_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TwoStages(3).eval()
    frozen = FrozenNetwork(_settings(tmp_path, network), ["a", "b", "c"], "cpu")
    assert frozen.layout.taps == (8, 12) and frozen.layout.inputs == 12
    settings = frozen.settings
    scaled = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (settings.mean, settings.std))
    with torch.no_grad():
        first = network.first((scaled - mean) / std)
        second = network.second(first)
    features = torch.from_numpy(frozen.features(IMAGES))
    one, two = frozen.layout.pooled(features)
    assert torch.allclose(one, first.mean((2, 3)), atol=1e-5)
    assert torch.allclose(two, second.mean((2, 3)), atol=1e-5)
    assert torch.allclose(frozen.layout.of_last_layer(features), second.mean((2, 3)), atol=1e-5)


def test_without_a_last_linear_layer_the_deepest_tap_is_read(tmp_path: Path) -> None:
    frozen = FrozenNetwork(_settings(tmp_path, ConvolutionAtTheEnd(3)), ["a", "b", "c"], "cpu")
    assert frozen.layout.inputs == 0
    features = torch.from_numpy(frozen.features(IMAGES))
    deepest = frozen.layout.pooled(features)[-1]
    assert torch.equal(frozen.layout.of_last_layer(features), deepest)


@pytest.mark.parametrize(
    ("changes", "same"), [({}, True), ({"seed": 5}, True), ({"mean": (0.1, 0.2, 0.3)}, False)]
)
def test_the_key_is_of_what_decides_features(
    tmp_path: Path, changes: dict[str, Any], same: bool
) -> None:
    torch.manual_seed(0)
    network = TwoStages(3)
    settings = _settings(tmp_path, network)
    key = FrozenNetwork(settings, ["a", "b", "c"], "cpu").key()
    other = FrozenNetwork(_settings(tmp_path, network, **changes), ["a", "b", "c"], "cpu").key()
    assert (other == key) == same
    nn.init.normal_(network.first[0].weight)
    changed = FrozenNetwork(_settings(tmp_path, network), ["a", "b", "c"], "cpu").key()
    assert changed != key
