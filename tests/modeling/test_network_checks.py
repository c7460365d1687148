"""Networks from outside that lloss could not compute with, and says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lloss
from lloss.errors import SettingsError
from lloss.modeling.network_checks import check_logits, check_trainable, check_weights
from lloss.modeling.network_factory import make_network

from ..outside_networks import TwoStages


def _on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Conv2d(3, 4, 1)


def _in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return nn.Conv2d(3, 4, 1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(3, 4, 1).half(), "'weight' is float16; lloss takes networks in float32"),
        (nn.BatchNorm2d(4).double(), "'weight' is float64; "),
        (_on_meta(), r"'weight' has no values \(device meta\)"),
        (_in_inference_mode(), "'weight' was made in torch.inference_mode"),
    ],
)
def test_weights_that_cannot_be_computed_with_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^model 'a:b': {message}"):
        check_weights(network, "model 'a:b'")
    with pytest.raises(SettingsError, match=message):
        make_network("a:b", lambda num_classes: network, 2, {})
    with pytest.raises(SettingsError, match=message):
        lloss.attach(network, size=8)


def test_lazy_layers_and_whole_numbers_are_fine() -> None:
    check_weights(nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4)), "it")


def test_a_factory_cannot_turn_gradients_off() -> None:
    def factory(num_classes: int) -> nn.Module:
        torch.set_grad_enabled(False)
        return nn.Linear(2, num_classes)

    make_network("a:b", factory, 2, {})
    assert torch.is_grad_enabled()


def test_a_network_that_is_frozen_as_a_whole_is_not_trained() -> None:
    network = TwoStages()
    check_trainable(network.requires_grad_(False).requires_grad_(True), "it", "freeze")
    next(network.requires_grad_(False).parameters()).requires_grad_(True)
    check_trainable(network, "it", "freeze")
    check_trainable(nn.ReLU(), "it", "freeze")
    with pytest.raises(SettingsError, match=r"it: no parameter has requires_grad, .*, or freeze"):
        check_trainable(network.requires_grad_(False), "it", "freeze")
    model = lloss.attach(network, size=8)
    with pytest.raises(SettingsError, match="a TwoStages: no parameter has requires_grad"):
        lloss.fit(model, torch.zeros(4, 3, 8, 8), [0, 1, 2, 0], epochs=1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 4)])
def test_probabilities_are_not_taken_for_logits(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for good in (logits, logits.log_softmax(1), torch.zeros(shape), torch.ones(2, 1)):
        check_logits(good, "it")
    with pytest.raises(SettingsError, match="it: the network gives probabilities.*the softmax"):
        check_logits(logits.softmax(1), "it")


def test_attach_refuses_probabilities() -> None:
    def softmax(logits: torch.Tensor) -> Any:
        return logits.softmax(1)

    with pytest.raises(SettingsError, match="task 'classification': the network gives prob"):
        lloss.attach(TwoStages(3, softmax), size=8)


def test_attach_refuses_a_mean_of_0_to_255() -> None:
    with pytest.raises(SettingsError, match=r"mean = .*: is of channels in 0..1; divide"):
        lloss.attach(TwoStages(3), size=8, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))


def test_images_in_double_precision_are_taken() -> None:
    model = lloss.attach(TwoStages(3), size=8)
    images = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = [lloss.fit_head(model, x, [0, 1, 2] * 10).mean_loss for x in (images, images.double())]
    assert found[0] == found[1]


def test_fit_trains_where_gradients_are_off() -> None:
    model = lloss.attach(TwoStages(3), size=8)
    with torch.no_grad():
        (figures,) = lloss.fit(model, torch.randn(6, 3, 8, 8), [0, 1, 2] * 2, epochs=1)
    assert figures["epoch"] == 1


class _BatchStatistics(nn.BatchNorm2d):
    """Stays in training mode, as frozen code of others has it the other way round."""

    def train(self, mode: bool = True) -> nn.BatchNorm2d:
        return super().train()


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (nn.BatchNorm2d(3), ""),
        (nn.BatchNorm2d(3, track_running_stats=False), "gives another output for an image alone "),
        (_BatchStatistics(3), "gives another .*; let '0' use running statistics"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), _BatchStatistics(3)), "does not take one image al"),
    ],
)
def test_an_image_is_read_without_its_neighbors(norm: nn.Module, message: str) -> None:
    network = nn.Sequential(norm, TwoStages(3))
    if not message:
        lloss.attach(network, size=8)
        return
    with pytest.raises(SettingsError, match=f"^a Sequential: {message}"):
        lloss.attach(network, size=8)


def test_statistics_of_a_batch_need_no_batch_norm() -> None:
    class Centered(TwoStages):
        def forward(self, images: torch.Tensor) -> Any:
            return super().forward(images - images.mean())

    with pytest.raises(SettingsError, match="a Centered: .* in a batch, .*; if it has batch norm"):
        lloss.attach(Centered(), size=8)
