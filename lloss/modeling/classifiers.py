"""Classification networks by name: torchvision's, and what torchvision lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torchvision import models as torchvision_models

from lloss.errors import SettingsError
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.networks import resnet_cifar
from lloss.modeling.pretrained_weights import read_state_dict, start_from

OWN = {
    "resnet18-cifar": resnet_cifar.resnet18,
    "resnet10-cifar-narrow": resnet_cifar.resnet10_narrow,
}

HALVES = (0.5, 0.5, 0.5)
SCALED = ("googlenet", "inception_v3")
"""Their ImageNet weights are of images scaled to -1..1: mean and deviation are :data:`HALVES`."""

MOMENTUM = 0.1
"""Of batch norm's running statistics, at least: with the .0003 of MNASNet or the .01 of large
EfficientNets, they would stay near their start on a few hundred images."""

WIDE_START = ("efficientnet_", "mnasnet")
"""Networks whose last layer torchvision draws for a thousand classes: too large for a few."""

CLASSIFIER_STD = 0.01  # Of their last layer's weights instead, as of MobileNet's and RegNet's

SIDED: dict[str, Callable[[int], dict[str, Any]]] = {
    "vit_": lambda side: {"image_size": side},
    "maxvit_": lambda side: {"input_size": (side, side)},
}
"""Networks that are built for one size, and their arguments for it."""


def build_classifier(name: str, classes: int, weights: str = "none", size: int = 0) -> nn.Module:
    """Build a classification network: float [N, 3, H, W] to logits [N, classes].

    Args:
        name: one of :data:`OWN`, or any classification network of torchvision.
        classes: the number of classes.
        weights: ``none``; ``imagenet`` for torchvision's default weights (downloaded once); or the
            path of a state dict. A last layer for another number of classes stays fresh.
        size: side of the images in pixels, for networks that are built for one; 0 for their own.

    Raises ``SettingsError`` for an unknown network, or weights or a size that do not fit it.
    """
    network: nn.Module
    if name in OWN:
        network = OWN[name](classes)
    elif name in torchvision_models.list_models(module=torchvision_models):
        network = _torchvisions(name, classes, size)
    else:
        known = ", ".join([*OWN, "resnet18", "mobilenet_v3_small", "convnext_tiny", "vit_b_16"])
        raise SettingsError(f"model {name!r}: unknown; choose {known} or another of torchvision's")
    if weights != "none":
        state = _imagenet(name) if weights == "imagenet" else read_state_dict(weights)
        last = next(reversed(network.state_dict())).rpartition(".")[0]
        start_from(network, state, weights, name, {last})
    return network


def default_size(name: str) -> int:
    """Return the input's side in pixels that a network is usually trained at."""
    return 32 if name in OWN else _preparation(name).get("crop_size", 224)


def weights_notes(name: str, size: int, mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """Return a line on differences from the images that the ImageNet weights were trained on."""
    wants = _preparation(name)
    if not wants:
        return []
    usual = (HALVES, HALVES) if name in SCALED else (IMAGENET_MEAN, IMAGENET_STD)
    wanted = {
        "size": (wants["crop_size"],),
        "mean": wants.get("mean", usual[0]),
        "std": wants.get("std", usual[1]),
    }
    given = {"size": (size,), "mean": tuple(mean), "std": tuple(std)}
    other = [
        f"--{key} {','.join(map(str, value))}"
        for key, value in wanted.items()
        if given[key] != value
    ]
    if not other:
        return []
    return [f"note: the ImageNet weights of {name} are of images prepared by {' '.join(other)}"]


def _preparation(name: str) -> dict[str, Any]:
    """How images were prepared for torchvision's default weights; {} without such weights."""
    if name not in torchvision_models.list_models(module=torchvision_models):
        return {}
    transforms = torchvision_models.get_model_weights(name).DEFAULT.transforms
    return dict(transforms.keywords)


def _torchvisions(name: str, classes: int, size: int) -> nn.Module:
    # Auxiliary classifiers would turn the output of training into a tuple.
    extra: dict[str, Any] = {"aux_logits": False} if name in SCALED else {}
    side = next((side for prefix, side in SIDED.items() if name.startswith(prefix)), None)
    if side and size:
        extra = side(size)
    try:
        network: nn.Module = torchvision_models.get_model(
            name, weights=None, num_classes=classes, **extra
        )
    except (ValueError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise SettingsError(f"size = {size}: {name} cannot be made for it: {why}") from error
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum:
            module.momentum = max(module.momentum, MOMENTUM)
    if name.startswith(WIDE_START):
        *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
        nn.init.normal_(last.weight, std=CLASSIFIER_STD)
    return network


def _imagenet(name: str) -> dict[str, Any]:
    if name in OWN:
        raise SettingsError(f"model {name!r}: has no ImageNet weights; use --weights none")
    try:
        best = torchvision_models.get_model_weights(name).DEFAULT
        return dict(best.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise SettingsError(f"weights of {name}: cannot be downloaded: {error}") from error
