"""Training that begins with the weights of an earlier run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lloss.errors import CheckpointError
from lloss.modeling.registry import set_transform_input
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.first_names import first_names
from lloss.training.checkpoint import Checkpoint
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData

_NETWORK = "network."  # Before the names of the target network's weights


def warm_trainer(
    start: Checkpoint,
    settings: TrainSettings,
    data: TrainingData,
    device: str,
    say: Callable[[str], None],
) -> Trainer:
    """Make a trainer that begins with the weights of a run; ``say`` receives what it left out.

    Raises ``CheckpointError`` for weights of another network.
    """
    for name in ("task", "model"):
        theirs, ours = getattr(start.settings, name), getattr(settings, name)
        if theirs != ours:
            raise CheckpointError(
                f"{start.path}: is of {name} {theirs!r}, not {ours!r}; give a warm start of the "
                "same network, or leave it out"
            )
    weights = _first_weights(start, data.classes)
    trainer = Trainer(settings, data, device, weights)
    if taps_of(trainer) != start.settings.taps:  # a head of other layers, even of the same widths
        network = {name: value for name, value in weights.items() if name.startswith(_NETWORK)}
        trainer = Trainer(settings, data, device, network)
    set_transform_input(trainer.model.network, start.state)
    layers = dict.fromkeys(name.rpartition(".")[0] for name in trainer.model.state_dict())
    fresh = list(dict.fromkeys(name.rpartition(".")[0] for name in trainer.fresh))
    say(
        f"warm start: {len(layers) - len(fresh)} of {len(layers)} layers are those of {start.path}"
        + (f"; fresh: {first_names(fresh, 4)}" if fresh else "")
    )
    return trainer


def _first_weights(start: Checkpoint, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the weights of a run, without the layers of other classes."""
    weights: dict[str, Tensor] = start.state["model"]
    broken = next((k for k, v in weights.items() if not torch.isfinite(v).all()), None)
    if broken is not None:
        raise CheckpointError(
            f"{start.path}: its weights {broken!r} are infinite or NaN; give another warm start"
        )
    if start.classes == classes:
        return weights
    own = [name.removeprefix(_NETWORK) for name in weights if name.startswith(_NETWORK)]
    other = {_NETWORK + name for name in get_task(start.settings.task).class_layers(own)}
    return {name: value for name, value in weights.items() if name not in other}


def taps_of(trainer: Trainer) -> tuple[str, ...]:
    """Name the modules that the head reads."""
    return tuple(tap.module for tap in trainer.model.taps)
