"""Signs that training diverged, while it runs or right after."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lloss.errors import DivergedError
from lloss.modeling.network import Normalize, TappedNetwork
from lloss.tasks import get_task

if TYPE_CHECKING:
    from lloss.tasks.train_settings import TrainSettings
    from lloss.training.training_data import TrainingData

ROSE = 1.25  # Training failed where the last epoch's loss is this many times the first one's

FAR = 2.0
"""Batch norm has not settled where the loss by its running statistics is above that by each
batch's own by this factor, and by :data:`SHARE` of the loss that training began with."""

SHARE = 0.5


def with_kept_checkpoint(error: DivergedError, path: Path) -> DivergedError:
    """Add to the error whether the checkpoint at ``path`` keeps an earlier state."""
    kept = f"{path} keeps a state before that" if path.exists() else "No checkpoint was written"
    return DivergedError(f"{error}. {kept}")


def remedy(settings: TrainSettings) -> str:
    """Say what to do about a learning rate that is too high."""
    other = [] if settings.optimizer == "adam" else ["--optimizer adam with --lr 0.001"]
    other += ["trained --weights"] if settings.weights == "none" else []
    other += ["--amp off"] if settings.amp != "off" else []
    also = f", or try {' or '.join(other)}" if other else ""
    return f"lower --lr (it is {settings.lr:g}; try {settings.lr / 10:g}){also}"


def doubts(
    model: TappedNetwork, settings: TrainSettings, data: TrainingData, metrics: Path
) -> list[str]:
    """Return lines on why not to rely on a trained network; usually none.

    ``data`` are some training images at the input's size, ``metrics`` the figures of the epochs.
    """
    epochs = [json.loads(line)["loss"] for line in metrics.read_text("utf-8").splitlines()]
    if not epochs:
        return []
    found = []
    if epochs[-1] > ROSE * epochs[0]:
        found.append(
            f"the training loss rose, from {epochs[0]:.3g} in the first epoch to "
            f"{epochs[-1]:.3g} in the last: the network has learned nothing; {remedy(settings)}"
        )
    with batch_statistics(model) as norms:
        learned = _mean_loss(model, settings, data) if norms else 0.0
    used = _mean_loss(model.eval(), settings, data) if norms else 0.0
    # Not the reverse: NaN is far too.
    if not (used <= FAR * learned or used - learned <= SHARE * epochs[0]):
        found.append(
            f"batch norm's statistics have not settled: on {len(data.images)} training "
            f"images the loss is {learned:.3g} by each batch's own, as in training, but {used:.3g} "
            "by the running ones, as the network is used: its predictions are not to be relied "
            "on. Train for more epochs, with a smaller --batch-size (more steps), a lower --lr "
            f"(it is {settings.lr:g})"
            + (", or from trained --weights" if settings.weights == "none" else "")
        )
    return found


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[bool]:
    """Let batch norms use each batch's own statistics, as in training; all else is in eval mode.

    The running statistics stay as they are. Yields whether the network has a batch norm.
    """
    model.eval()
    kinds = nn.modules.batchnorm._BatchNorm  # torch has no public name for all of them
    norms = [m for m in model.modules() if isinstance(m, kinds) and m.track_running_stats]
    kept = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    try:
        for norm in norms:
            norm.train()
        yield bool(norms)
    finally:
        for norm, values in zip(norms, kept):
            norm.eval()
            for buffer, value in zip(norm.buffers(), values):
                buffer.copy_(value)


def _mean_loss(model: TappedNetwork, settings: TrainSettings, data: TrainingData) -> float:
    """Compute the target network's mean loss, in the modes that its modules are in."""
    device = next(model.parameters()).device
    normalize = Normalize(settings.mean, settings.std).to(device)
    count = len(data.images)
    order = np.random.default_rng(settings.seed).permutation(count)  # no batch of one class
    losses, task = [], get_task(settings.task)
    for rows in np.array_split(order, max(1, min(-(-count // settings.batch_size), count // 2))):
        targets = task.collate([data.targets[row] for row in rows]).to(device)
        with torch.no_grad():
            output = model(normalize(torch.from_numpy(data.images[rows]).to(device))).output
            losses.append(model.objective.loss_per_image(output, targets).float().cpu())
    return float(torch.cat(losses).mean())
