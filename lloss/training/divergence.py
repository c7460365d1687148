"""Signs that training diverged, while it runs or right after."""

from __future__ import annotations

import json
import math
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lloss.tasks.train_settings import TrainSettings

FORGOTTEN = 10  # Steps × momentum after which running statistics have left their start behind
ROSE = 1.25  # Training failed where the last epoch's loss is this many times the first one's


def remedy(settings: TrainSettings) -> str:
    """Say what to do about a learning rate that is too high."""
    other = [] if settings.optimizer in ("adam", "adamw") else ["--optimizer adamw with --lr 0.001"]
    other += ["trained --weights"] if settings.weights == "none" else []
    other += ["--amp off"] if settings.amp != "off" else []
    also = f", or try {' or '.join(other)}" if other else ""
    return f"lower --lr (it is {settings.lr:g}; try {settings.lr / 10:g}){also}"


def few_steps_note(model: nn.Module, steps: int) -> str:
    """Say that a network with batch norm gets few steps; "" where that is not so."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momentum = min((norm.momentum for norm in norms if norm.momentum), default=0.1)
    enough = math.ceil(round(FORGOTTEN / momentum, 3))
    if not norms or steps >= enough:
        return ""
    larger = f", or raise their momentum (it is {momentum:g})" if momentum < 0.1 else ""
    return (
        f"few steps ({steps}) for a network with batch norm: its running statistics follow "
        f"slowly; more epochs, or a smaller batch, for {enough:,} or more{larger}"
    )


def doubts(settings: TrainSettings, metrics: Path) -> list[str]:
    """Return lines on why not to rely on a trained network, by its epochs' figures."""
    epochs = [json.loads(line)["loss"] for line in metrics.read_text("utf-8").splitlines()]
    if not epochs or epochs[-1] <= ROSE * epochs[0]:
        return []
    return [
        f"the training loss rose, from {epochs[0]:.3g} in the first epoch to {epochs[-1]:.3g} in "
        f"the last: the network has learned nothing; {remedy(settings)}"
    ]
