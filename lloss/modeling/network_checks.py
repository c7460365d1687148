"""What a network from outside must be, so that lloss can train or read it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lloss.errors import SettingsError

CLOSE = 1e-4
"""Sums this near to 1 are of probabilities."""


def check_weights(network: nn.Module, what: str) -> None:
    """Refuse weights that lloss cannot compute with; ``what`` names the network in the message."""
    if isinstance(network, torch.jit.ScriptModule):
        raise SettingsError(f"{what}: is compiled by TorchScript; give the module that it is of")
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if nn.parameter.is_lazy(value):
            continue  # the first images make it
        if value.is_meta:
            raise SettingsError(
                f"{what}: {name!r} has no values (device meta); build it on a real device"
            )
        if value.is_inference():
            raise SettingsError(
                f"{what}: {name!r} was made in torch.inference_mode, where nothing can be trained; "
                "build the network outside of it"
            )
        parameter = isinstance(value, nn.Parameter)  # a constant may well have another precision
        if parameter and value.is_floating_point() and value.dtype != torch.float32:
            raise SettingsError(
                f"{what}: {name!r} is {str(value.dtype).removeprefix('torch.')}; lloss takes "
                "networks in float32: network.float()"
            )


def check_trainable(network: nn.Module, what: str, instead: str) -> None:
    """Refuse to train a network that is frozen as a whole: only its head would learn."""
    parameters = list(network.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        raise SettingsError(
            f"{what}: no parameter has requires_grad, so that training would leave the network as "
            f"it is; call requires_grad_() on what is to be trained, or {instead}"
        )


def check_logits(logits: Tensor, what: str) -> None:
    """Refuse probabilities, float [N, classes, ...], in the place of logits."""
    if logits.shape[1] < 2 or not logits.is_floating_point():
        return
    sums = logits.float().sum(1)
    if bool((logits >= 0).all()) and bool(((sums - 1).abs() < CLOSE).all()):
        raise SettingsError(
            f"{what}: the network gives probabilities, which add up to 1; lloss takes logits: "
            "leave the softmax at its end out"
        )
