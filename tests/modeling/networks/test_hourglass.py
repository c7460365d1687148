from __future__ import annotations

import pytest
import torch
from torch import nn

from lloss.errors import SettingsError
from lloss.modeling.networks.hourglass import build_hourglass, stacks_of


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_networks_have_their_size() -> None:
    """Published: 25.1 million for 8 stacks (Sun et al. 2019, HRNet, table 1).

    Two stacks of the common PyTorch versions have 6.7 million: their stem is a little wider.
    """
    with torch.device("meta"):
        two, eight = build_hourglass("hourglass2", 16), build_hourglass("hourglass8", 16)
    assert 6_500_000 < _parameters(two) < 6_800_000
    assert 25_000_000 < _parameters(eight) < 25_700_000


@pytest.mark.parametrize(("name", "stacks", "width"), [("hourglass2", 2, 256),
                                                       ("hourglass3-narrow", 3, 64)])  # fmt: skip
def test_each_stack_gives_heatmaps_and_a_map_to_tap(name: str, stacks: int, width: int) -> None:
    with torch.device("meta"):
        network = build_hourglass(name, 14)
        assert network(torch.zeros(2, 3, 256, 256)).shape == (2, stacks, 14, 64, 64)
        shapes = [tuple(layer.shape) for layer in _maps(network)]
    assert shapes == [(2, width, 64, 64)] * stacks
    assert stacks_of(name) == stacks


def _maps(network: nn.Module) -> list[torch.Tensor]:
    kept: list[torch.Tensor] = []
    for module in network.get_submodule("maps").children():
        module.register_forward_hook(lambda m, x, y: kept.append(y))
    network(torch.zeros(2, 3, 256, 256))
    return kept


@pytest.mark.parametrize(("size", "remedy"), [(100, 128), (32, 64), (0, 64), (255, 256)])
def test_a_size_that_cannot_be_halved_is_refused(size: int, remedy: int) -> None:
    network = build_hourglass("hourglass1-narrow", 2)
    with pytest.raises(SettingsError, match=rf"size = {size}: .* use {remedy}"):
        network(torch.zeros(1, 3, 64, size))


@pytest.mark.parametrize("name", ["hourglass", "hourglass0", "hourglass9", "hourglass2-wide", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(SettingsError, match="choose hourglass1 to hourglass8"):
        build_hourglass(name, 16)
