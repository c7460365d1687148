"""Classification networks by name: torchvision's, and what torchvision lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

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


NORMALIZED = ("googlenet", "inception_v3")
"""Their ImageNet weights are of images scaled to -1..1, which they do with ``transform_input``."""

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
        network = _torchvisions(name, classes, size, weights)
    else:
        known = ", ".join([*OWN, "resnet18", "mobilenet_v3_small", "convnext_tiny", "vit_b_16"])
        raise SettingsError(f"model {name!r}: unknown; choose {known} or another of torchvision's")
    if weights != "none":
        _load_weights(network, name, weights)
    return network


def transforms_input(network: nn.Module) -> bool:
    """Return whether the network rescales normalised images for its weights."""
    return bool(getattr(network, "transform_input", False))


def set_transform_input(network: nn.Module, state: Mapping[str, Any]) -> None:
    """Restore the flag from a checkpoint: the state dict lacks it."""
    if hasattr(network, "transform_input"):
        setattr(network, "transform_input", bool(state.get("transform_input", False)))  # noqa: B010


def default_size(name: str) -> int:
    """Return the input's side in pixels that a network is usually trained at."""
    return 32 if name in OWN else _preparation(name).get("crop_size", 224)


def weights_notes(name: str, size: int, mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """Return lines on differences from the images that the ImageNet weights were trained on."""
    wants = _preparation(name)
    if not wants:
        return []
    found = []
    if size != wants["crop_size"]:
        found.append(
            f"note: the ImageNet weights of {name} are of images of {wants['crop_size']} pixels, "
            f"and size is {size}: leave --size out, or train for longer"
        )
    wanted = {"mean": wants.get("mean", IMAGENET_MEAN), "std": wants.get("std", IMAGENET_STD)}
    if (tuple(mean), tuple(std)) != tuple(wanted.values()):
        how = " ".join(f"--{key} {','.join(map(str, value))}" for key, value in wanted.items())
        found.append(
            f"note: the ImageNet weights of {name} are of images normalised otherwise: give {how}"
        )
    return found


def _preparation(name: str) -> dict[str, Any]:
    """How images were prepared for torchvision's default weights; {} without such weights."""
    if name not in torchvision_models.list_models(module=torchvision_models):
        return {}
    transforms = torchvision_models.get_model_weights(name).DEFAULT.transforms
    return dict(transforms.keywords)


def _torchvisions(name: str, classes: int, size: int, weights: str) -> nn.Module:
    # Auxiliary classifiers would turn the output of training into a tuple.
    extra: dict[str, Any] = {"aux_logits": False} if name in NORMALIZED else {}
    side = next((side for prefix, side in SIDED.items() if name.startswith(prefix)), None)
    if side and size:
        wanted = default_size(name)
        if weights == "imagenet" and size != wanted:
            raise SettingsError(
                f"size = {size}: the ImageNet weights of {name} are of images of {wanted} pixels "
                f"alone; use --size {wanted}, or --weights none"
            )
        extra = side(size)
    try:
        network = torchvision_models.get_model(name, weights=None, num_classes=classes, **extra)
    except (ValueError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise SettingsError(f"size = {size}: {name} cannot be made for it: {why}") from error
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum:
            module.momentum = max(module.momentum, MOMENTUM)
    if name.startswith(WIDE_START):
        *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
        nn.init.normal_(last.weight, std=CLASSIFIER_STD)
    return cast(nn.Module, network)


def _load_weights(network: nn.Module, name: str, weights: str) -> None:
    if weights == "imagenet":
        if name in OWN:
            raise SettingsError(f"model {name!r}: has no ImageNet weights; use --weights none")
        try:
            best = torchvision_models.get_model_weights(name).DEFAULT
            state = best.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise SettingsError(f"weights of {name}: cannot be downloaded: {error}") from error
        if name in NORMALIZED:
            set_transform_input(network, {"transform_input": True})
    else:
        state = read_state_dict(weights)
    last = next(reversed(network.state_dict())).rpartition(".")[0]
    start_from(network, state, weights, name, {last})
