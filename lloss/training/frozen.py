"""Training with ``freeze``: the network stays as it is, and the head learns from one pass."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from torch import nn

from lloss.errors import SettingsError
from lloss.modeling.attached_model import AttachedModel, Preparation
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.modeling.network import TappedNetwork
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.feature_cache import run_network
from lloss.training.fit_head import HeadFit, fit_cached_head, refuse_few
from lloss.training.labeled_batches import LabeledImages
from lloss.training.last_layer import LAST, built, fresh_layers, train_last_layer
from lloss.training.trainer import device_of
from lloss.training.training_data import TrainingData

UNUSED = {
    "epochs": 1, "batch_size": 64, "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0,
    "clip": 0.0, "fresh_lr": 1.0,
}  # fmt: skip
"""What has no effect, in the place of automatic settings."""


@dataclass(frozen=True)
class FrozenFit:
    """A frozen network with a trained head."""

    network: TappedNetwork
    head: HeadFit
    lines: list[str]  # what was trained, and how well it does, for the user

    def figures(self) -> dict[str, Any]:
        """Return what was measured, as :meth:`.Evaluation.as_dict` does.

        The metric is there for a classifier alone: of its output on each image, on which the last
        layer was not trained.
        """
        head, found = self.head, self.head.as_dict()
        if head.metric is not None:
            found["accuracy"] = head.metric
            found["intervals"]["accuracy"] = head.metric_interval
            found["metric_images"] = head.images
        return found


def settings_of_frozen(settings: TrainSettings) -> TrainSettings:
    """Return the settings of one pass over the images."""
    unused: dict[str, Any] = {k: v for k, v in UNUSED.items() if k in settings.undecided}
    return dataclasses.replace(settings, **{**unused, "epochs": 1})


def without_effect(settings: TrainSettings) -> str:
    """Return a line on settings that are given and that a frozen network does not need, or ""."""
    given = [
        f"{name} = {value}"
        for name in UNUSED
        if name not in settings.undecided and (value := getattr(settings, name)) != UNUSED[name]
    ]
    if settings.folds > 0:
        given.append(f"folds = {settings.folds}")
    if not given:
        return ""
    return f"freeze takes one pass and no step of training, so without effect: {', '.join(given)}"


def train_frozen(settings: TrainSettings, data: TrainingData, device: str = "") -> FrozenFit:
    """Train the head, and a last layer of other classes, on one pass of a network in eval mode.

    ``data`` are images as a scorer decodes them. The other layers keep their first weights. Raises
    ``SettingsError`` where more than the last layer has no trained weights, ``LabelError`` for too
    few images.
    """
    refuse_few(len(data))
    network = built(settings, data.classes, 0)
    if network.start:
        fresh = list(network.start.left)
    else:  # perhaps a network of the user's that loads its weights itself
        fresh = fresh_layers(network.network, built(settings, data.classes, 1).network)
    last = _last_layer(network.network, fresh, settings)
    preparation = Preparation(image=settings.image_spec(), mean=settings.mean, std=settings.std)
    model = AttachedModel(network, settings.task, data.classes, preparation).to(device_of(device))
    labeled = LabeledImages(model, data, get_task(settings.task))
    lines = [network.start.line] if network.start else []
    if last is None:
        cache = run_network(model, labeled, grouped=True)
    else:
        cache = train_last_layer(model, last, labeled, settings.seed)
        lines.append(_described(fresh[0]))
    compare = functools.partial(HEAD_LOSSES[settings.head_loss], xi=settings.xi)
    head = fit_cached_head(model, cache, compare, seed=settings.seed)
    lines += [*filter(None, [head.reads]), f"the predicted loss is {head.unit}", *head.conditions]
    return FrozenFit(network, head, lines)


def _last_layer(network: nn.Module, fresh: list[str], settings: TrainSettings) -> nn.Linear | None:
    """Return the one layer to train besides the head; None where all have trained weights."""
    if not fresh:
        return None
    if settings.weights == "none":
        raise SettingsError(
            f"freeze: {settings.model!r} has no trained weights; pass --weights imagenet, or the "
            "path of a state dict"
        )
    layer = network.get_submodule(fresh[0])
    if len(fresh) > 1 or not isinstance(layer, nn.Linear) or layer.bias is None:
        raise SettingsError(
            f"freeze: {len(fresh)} layers of {settings.model!r} have no trained weights in "
            f"{settings.weights} ({fresh[0]!r}, {type(layer).__name__}, is the first), and {LAST}; "
            "leave freeze out, or give a state dict of the whole network"
        )
    return layer


def _described(name: str) -> str:
    return f"the last layer {name!r}, of other classes, was trained on the frozen network"
