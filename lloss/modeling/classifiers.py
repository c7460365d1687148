"""Classification networks by name: torchvision's, and what torchvision lacks."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models as torchvision_models

from lloss.errors import SettingsError
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.networks import resnet_cifar
from lloss.modeling.published_weights import Published, TorchvisionWeights

OWN = {
    "resnet18-cifar": resnet_cifar.resnet18,
    "resnet10-cifar-narrow": resnet_cifar.resnet10_narrow,
}

HALVES = (0.5, 0.5, 0.5)
SCALED = ("googlenet", "inception_v3")
"""Their ImageNet weights are of images scaled to -1..1: mean and deviation are :data:`HALVES`."""

MOMENTUM = 0.1
"""Least momentum of batch norm's running statistics: with MNASNet's .0003 or the .01 of large
EfficientNets they would stay near their start on a few hundred images."""

WIDE_START = ("efficientnet_", "mnasnet")
"""Networks whose last layer torchvision draws for a thousand classes: too large for a few."""

CLASSIFIER_STD = 0.01  # Of their last layer's weights instead, as of MobileNet's and RegNet's


def build_classifier(name: str, classes: int) -> nn.Module:
    """Build a network of :data:`OWN` or torchvision: float [N, 3, H, W] to logits [N, classes].

    Raises ``SettingsError`` for an unknown network.
    """
    if name in OWN:
        return OWN[name](classes)
    if name in torchvision_models.list_models(module=torchvision_models):
        return _torchvisions(name, classes)
    known = ", ".join([*OWN, "resnet18", "mobilenet_v3_small", "convnext_tiny", "vit_b_16"])
    raise SettingsError(
        f"model {name!r}: unknown; choose {known}, another of torchvision's, "
        "timm:NAME or package.module:factory"
    )


def published(name: str) -> Published | None:
    """torchvision's default weights of a network of its own; None for others."""
    theirs = torchvision_models.list_models(module=torchvision_models)
    return TorchvisionWeights(name) if name in theirs else None


def preparation(name: str) -> dict[str, Any]:
    """Return ``size``, ``mean`` and ``std`` of the images of torchvision's default weights.

    For a network without such weights it is the size that it is usually trained at.
    """
    if name not in torchvision_models.list_models(module=torchvision_models):
        return {"size": 32 if name in OWN else 224}
    found = torchvision_models.get_model_weights(name).DEFAULT.transforms.keywords
    mean, std = (HALVES, HALVES) if name in SCALED else (IMAGENET_MEAN, IMAGENET_STD)
    return {
        "size": found["crop_size"],
        "mean": found.get("mean", mean),
        "std": found.get("std", std),
    }


def _torchvisions(name: str, classes: int) -> nn.Module:
    # Auxiliary classifiers would turn the output of training into a tuple.
    extra: dict[str, Any] = {"aux_logits": False} if name in SCALED else {}
    network: nn.Module = torchvision_models.get_model(
        name, weights=None, num_classes=classes, **extra
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum:
            module.momentum = max(module.momentum, MOMENTUM)
    if name.startswith(WIDE_START):
        *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
        nn.init.normal_(last.weight, std=CLASSIFIER_STD)
    return network
