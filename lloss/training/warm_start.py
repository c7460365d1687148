"""Training that begins with the weights of an earlier run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lloss.errors import CheckpointError
from lloss.modeling.network import NETWORK, PRETRAINED, TappedNetwork
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.first_names import first_names
from lloss.training.checkpoint import Checkpoint


def take_weights(
    model: TappedNetwork, start: Checkpoint, settings: TrainSettings, classes: Sequence[str]
) -> str:
    """Give a network the weights of a run that fit it; return a line on what stays fresh.

    Layers of other classes, and a head that reads other modules, stay fresh. Raises
    ``CheckpointError`` for weights of another network.
    """
    for name in ("task", "model", "model_args"):
        theirs, ours = getattr(start.settings, name), getattr(settings, name)
        if theirs != ours:
            raise CheckpointError(
                f"{start.path}: is of {name} {theirs!r}, not {ours!r}; give a warm start of the "
                "same network, or leave it out"
            )
    weights: dict[str, Tensor] = start.state["model"]
    broken = next((k for k, v in weights.items() if not torch.isfinite(v).all()), None)
    if broken is not None:
        raise CheckpointError(
            f"{start.path}: its weights {broken!r} are infinite or NaN; give another warm start"
        )
    # Features of before the training stay those of this run's own first weights.
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(PRETRAINED)}
    fresh = set[str]()
    if start.classes != tuple(classes):
        names = [name.removeprefix(NETWORK) for name in own if name.startswith(NETWORK)]
        made = get_task(settings.task).networks(settings.model, settings.model_args)
        fresh = {NETWORK + name for name in made.class_layers(names)}
    if tuple(tap.module for tap in model.taps) != start.settings.taps:
        fresh |= {name for name in own if not name.startswith(NETWORK)}
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and name not in fresh and value.shape == own[name].shape
    }
    model.load_state_dict(fitting, strict=False)
    layers, left = (
        list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        for names in (own, [name for name in own if name not in fitting])
    )
    return (
        f"warm start: {len(layers) - len(left)} of {len(layers)} layers are those of {start.path}"
        + (f"; fresh: {first_names(left, 4)}" if left else "")
    )
