"""Classification networks by name: torchvision's, and what torchvision lacks."""

from __future__ import annotations

from torch import nn
from torchvision import models as torchvision_models

from lloss.errors import SettingsError
from lloss.models import resnet_cifar
from lloss.models.weights import read_state_dict, start_from

OWN = {
    "resnet18-cifar": resnet_cifar.resnet18,
    "resnet10-cifar-narrow": resnet_cifar.resnet10_narrow,
}


def build_classifier(name: str, classes: int, weights: str = "none") -> nn.Module:
    """Build a classification network: float [N, 3, H, W] to logits [N, classes].

    Args:
        name: one of ``resnet18-cifar``, ``resnet10-cifar-narrow``, or any classification network
            of torchvision (``resnet18``, ``vit_b_16``, …).
        classes: the number of classes.
        weights: ``none``; ``imagenet`` for torchvision's default weights (downloaded once); or the
            path of a state dict. A last layer for another number of classes starts afresh.

    Raises:
        SettingsError: no such network, or the weights do not fit it.
    """
    if name in OWN:
        network = OWN[name](classes)
    elif name in torchvision_models.list_models(module=torchvision_models):
        # Auxiliary classifiers would turn the output of training into a tuple.
        extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        network = torchvision_models.get_model(name, weights=None, num_classes=classes, **extra)
    else:
        known = ", ".join([*OWN, "resnet18", "mobilenet_v3_small", "convnext_tiny", "vit_b_16"])
        raise SettingsError(f"model {name!r}: unknown; choose {known} or another of torchvision's")
    if weights != "none":
        _load_weights(network, name, weights)
    return network


def default_size(name: str) -> int:
    """The input's side in pixels that a network is usually trained at."""
    return 32 if name in OWN else 224


def _load_weights(network: nn.Module, name: str, weights: str) -> None:
    if weights == "imagenet":
        if name in OWN:
            raise SettingsError(f"model {name!r}: has no ImageNet weights; use --weights none")
        try:
            best = torchvision_models.get_model_weights(name).DEFAULT
            state = best.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise SettingsError(f"weights of {name}: cannot be downloaded: {error}") from error
    else:
        state = read_state_dict(weights)
    last = next(reversed(network.state_dict())).rpartition(".")[0]
    start_from(network, state, weights, name, {last})
