"""Networks from outside lloss by name.

A name is ``timm:NAME``; ``package.module:factory``, see :mod:`lloss.modeling.network_factory`; or
that of an entry point of the group ``lloss.models``, which names a factory.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn
from torchvision import models as torchvision_models

from lloss.entry_points import MODELS, reason, registered
from lloss.errors import SettingsError
from lloss.images.input_spec import Resample
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.classifiers import CLASSIFIER_STD, OWN
from lloss.modeling.network_factory import find_factory, make_network, read_arguments
from lloss.modeling.networks import hourglass
from lloss.modeling.published_weights import Published, TimmWeights
from lloss.text.similar_names import nearest_few

TIMM = "timm:"

SIZE = 224
"""Side of the input in pixels for a network that says nothing of it."""

LEAST = 32
"""The smallest side that is chosen for a network that takes several: below, most have no stages."""

LOUD = 0.1
"""Standard deviation of a fresh last layer's weights above which they are drawn again: that of
EfficientNet is for a thousand classes, and of a few it would be sure of its first guesses."""

LLOSS_PASSES = ("num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
                "checkpoint_path", "cache_dir")  # fmt: skip
"""Arguments of ``timm.create_model`` that would load files, besides the number of classes."""


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """The images that a network was made for."""

    size: int  # side in pixels
    least: int  # the smallest side that it takes; `size` where it takes no other
    mean: tuple[float, ...]  # of the channels in 0..1
    std: tuple[float, ...]
    share: float = 1.0  # of the middle, and the filter, as ImageSpec has them
    resample: Resample = "bilinear"
    assumed: tuple[str, ...] = ()  # fields that the network does not say


def is_outside(model: str) -> bool:
    """Return whether a name is of a network from outside, not of lloss or torchvision."""
    if ":" in model:
        return True
    known = (*OWN, *hourglass.NAMES, *torchvision_models.list_models())
    return model in registered(MODELS) and model not in known


def build_network(model: str, classes: int, args: Sequence[str] = ()) -> nn.Module:
    """Build a network with fresh weights: float [N, 3, H, W] to whatever it returns.

    ``args`` are ``key=value`` texts for the factory. Raises ``SettingsError`` for what cannot be
    found, imported or built.
    """
    given = read_arguments(args)
    if not model.startswith(TIMM):
        return make_network(model, find_factory(model), classes, given)
    if refused := [name for name in given if name in LLOSS_PASSES]:
        raise SettingsError(
            f"model_args: {refused[0]!r} is not for timm's networks; --weights says what to start "
            "from"
        )
    timm, name = timm_of(model), model.removeprefix(TIMM)
    try:
        network: nn.Module = timm.create_model(name, num_classes=classes, **given)
    except Exception as error:  # timm raises what its networks do
        what = "".join(f", {key}={value!r}" for key, value in given.items())
        raise SettingsError(
            f"model {model!r}: cannot be built with num_classes={classes}{what}: {reason(error)}"
        ) from error
    linear = (module for module in network.modules() if isinstance(module, nn.Linear))
    for layer in linear:
        if layer.out_features == classes and layer.weight.std() > LOUD:
            nn.init.normal_(layer.weight, std=CLASSIFIER_STD)
    return network


@functools.lru_cache(maxsize=16)
def network_input(model: str, args: tuple[str, ...] = ()) -> NetworkInput:
    """Return the images that a network is made for, by timm's records or the network itself.

    Of a network that says nothing of them :data:`SIZE` and the mean and deviation of ImageNet are
    assumed. Raises as :func:`build_network`.
    """
    if model.startswith(TIMM):
        timm, name = timm_of(model), model.removeprefix(TIMM)
        record = timm.get_pretrained_cfg(name)
        found = _of_record(record.to_dict() if record else {})
        size = read_arguments(args).get("img_size")
        found |= {"size": (size, size), "least": size} if isinstance(size, int) else {}
    else:
        with torch.random.fork_rng(devices=[]):
            found = described_input(build_network(model, 2, args))
    usual: dict[str, Any] = {
        "size": (SIZE,),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "least": LEAST,
    }
    assumed = tuple(name for name in ("size", "mean", "std") if name not in found)
    known = {**usual, **found}
    return NetworkInput(**{**known, "size": max(known["size"])}, assumed=assumed)


def preparation(model: str, args: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings ``size``, ``mean`` and ``std`` of a network's input."""
    found = network_input(model, tuple(args))
    return {"size": found.size, "mean": found.mean, "std": found.std}


def assumptions(model: str, args: Sequence[str], settings: Mapping[str, Any]) -> str:
    """One line on the settings of the input that nobody chose; "" where there are none."""
    known = network_input(model, tuple(args))
    names = [name for name in known.assumed if settings[name] == getattr(known, name)]
    if not names:
        return ""
    values = {"size": f"{known.size} pixels", "mean": "ImageNet's mean", "std": "its deviation"}
    return (
        f"model {model!r} does not say what images it is made for: assumed are "
        f"{', '.join(values[name] for name in names)}; "
        f"{', '.join('--' + name for name in names)} set others"
    )


def described_input(network: nn.Module) -> dict[str, Any]:
    """Return what a network itself says of its input, as those of timm and Hugging Face do.

    Keys are those of :class:`NetworkInput`; ``size`` is height and width.
    """
    record = getattr(network, "pretrained_cfg", None)
    found = _of_record(record) if isinstance(record, Mapping) else {}
    size = getattr(getattr(network, "config", None), "image_size", None)
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    usable = len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
    if usable and "size" not in found:
        found |= {"size": sides, "least": max(sides)}
    return found


def named_classes(network: nn.Module) -> tuple[str, ...]:
    """Return the classes that a network of Hugging Face names, in the order of its outputs.

    () where it names none, as ``LABEL_0`` does, or one of them twice.
    """
    labels = getattr(getattr(network, "config", None), "id2label", None)
    if not isinstance(labels, Mapping):
        return ()
    names = tuple(str(labels.get(number, "LABEL_")) for number in range(len(labels)))
    unnamed = len(set(names)) < len(names) or any(name.startswith("LABEL_") for name in names)
    return () if unnamed else names


def _of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Read timm's ``pretrained_cfg``."""
    found: dict[str, Any] = {
        name: tuple(map(float, record[name])) for name in ("mean", "std") if record.get(name)
    }
    if record.get("input_size"):
        sides = tuple(record["input_size"][-2:])  # (3, H, W)
        least = max(LEAST, *(record.get("min_input_size") or (0,))[-2:])
        largest = max(sides)
        least = largest if record.get("fixed_input_size") else min(least, largest)
        found |= {"size": sides, "least": least}
    if record.get("interpolation") in get_args(Resample):
        found["resample"] = record["interpolation"]
    if record.get("crop_mode", "center") == "center" and 0 < (record.get("crop_pct") or 0) < 1:
        found["share"] = float(record["crop_pct"])
    return found


@functools.lru_cache(maxsize=16)
def class_layers(model: str, args: tuple[str, ...] = ()) -> frozenset[str]:
    """Name the parameters and buffers of a network that depend on the number of classes.

    They are those that another number of classes gives another shape.
    """
    with torch.random.fork_rng(devices=[]):
        two, three = (build_network(model, classes, args).state_dict() for classes in (2, 3))
    return frozenset(k for k, v in two.items() if k not in three or three[k].shape != v.shape)


def published(model: str, args: Sequence[str] = ()) -> Published | None:
    """Return the weights that timm publishes for a network; None for others."""
    if not model.startswith(TIMM):
        return None
    name = model.removeprefix(TIMM)
    record = timm_of(model).get_pretrained_cfg(name)
    if record is None or not record.has_weights:
        return None
    return TimmWeights(name, read_arguments(args))


def package_versions(model: str) -> dict[str, str]:
    """Return name and version of the package that a network is of, where it is an installed one."""
    if not is_outside(model):
        return {}
    root = "timm" if model.startswith(TIMM) else model.partition(":")[0].partition(".")[0]
    names = importlib.metadata.packages_distributions().get(root, [])
    return {name: importlib.metadata.version(name) for name in names}


def timm_of(model: str) -> Any:
    """Import timm, and check that it has the network."""
    try:
        import timm
    except ImportError as error:
        missing = getattr(error, "name", None)
        what = "needs the package timm" if missing == "timm" else f"timm: {reason(error)}"
        raise SettingsError(f"model {model!r}: {what}: pip install timm") from error
    name = model.removeprefix(TIMM)
    if not timm.is_model(name):
        similar = nearest_few(name, timm.list_models())
        raise SettingsError(
            f"model {model!r}: timm {timm.__version__} has no {name!r}; similar are "
            f"{', '.join(similar)}"
        )
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(name.partition(".")[0] + ".*")
        raise SettingsError(
            f"model {model!r}: timm {timm.__version__} has no such weights; it has "
            f"{', '.join(known) or 'none of this network'}"
        ) from error
    return timm
