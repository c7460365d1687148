"""What a network from outside must be, so that lloss can train or read it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lloss.entry_points import reason
from lloss.errors import SettingsError
from lloss.modeling.network import TappedNetwork
from lloss.modeling.prediction import prediction_of
from lloss.modeling.taps import evaluating

CLOSE = 1e-4
"""Sums this near to 1 are of probabilities."""

SAME = 1e-2
"""Of the largest value: kernels of other batch sizes differ by less, the batch's statistics by
more."""


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


def check_alone(model: TappedNetwork, image: tuple[int, int], what: str) -> None:
    """Refuse a network that reads of an image of ``image`` H and W something else in a batch.

    It runs in eval mode on noise: one image alone, then beside a brighter one of less contrast.
    """
    weight = next(model.parameters(), torch.empty(0))
    noise = torch.randn(2, 3, *image, generator=torch.Generator().manual_seed(0))
    images = torch.stack([noise[0], 1 + noise[1] / 2]).to(weight.device, weight.dtype)
    with evaluating(model):
        try:
            alone = _seen(model, images[:1])
        except Exception as error:  # a network from outside raises what it likes
            raise SettingsError(
                f"{what}: does not take one image alone: {reason(error)}; {batch_remedy(model)}"
            ) from error
        if _same(alone, [value[:1] for value in _seen(model, images)]):
            return
        if not _same(alone, _seen(model, images[:1])):
            return  # it draws its output, which no export accepts
        raise SettingsError(
            f"{what}: gives another output for an image alone than in a batch, in eval mode too, "
            f"so that its score would depend on its neighbors; {batch_remedy(model)}"
        )


def batch_remedy(network: nn.Module) -> str:
    """Say how to make a network in eval mode read each image alone."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            name = name.removeprefix("network.")
            return f"let {name!r} use running statistics: {_RUNNING}"
    return f"if it has batch norm, let it use running statistics: {_RUNNING}"


_RUNNING = "track_running_stats=True, and train(False) in eval mode"


def _seen(model: TappedNetwork, images: Tensor) -> list[Tensor]:
    """What the head reads of images, each float [N, C], and the output where it is one tensor."""
    features = model.features(images)
    output = prediction_of(features.output)
    if model.objective.summary_size:
        output = model.objective.summary(features.output)
    return [*features.pooled, *([output] if isinstance(output, Tensor) else [])]


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(
        torch.allclose(a, b, rtol=0, atol=SAME * float(a.abs().max()), equal_nan=True)
        for a, b in zip(some, others)
    )
