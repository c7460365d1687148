"""Optimizers and schedules by their names in the settings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from lloss.errors import SettingsError
from lloss.modeling.network import NETWORK, TappedNetwork
from lloss.tasks.train_settings import TrainSettings


def make_optimizer(model: TappedNetwork, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make the optimizer of network and head."""
    groups = _groups(model, settings)
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(groups, **common)
        case "adamw":
            return torch.optim.AdamW(groups, **common)
        case "rmsprop":
            return torch.optim.RMSprop(groups, momentum=settings.momentum, **common)
        case "sgd":
            return torch.optim.SGD(groups, momentum=settings.momentum, **common)
        case "auto":
            raise SettingsError("optimizer = 'auto': not decided yet; see lloss.training.decisions")


def _groups(model: TappedNetwork, settings: TrainSettings) -> list[dict[str, Any]]:
    """Divide the parameters: those that begin trained, and fresh ones at a rate of their own."""
    trained: list[nn.Parameter] = []
    fresh: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        begins = model.start is None or name.removeprefix(NETWORK) in model.start.taken
        (trained if begins else fresh).append(parameter)
    if settings.fresh_lr == 1 or not (trained and fresh):
        return [{"params": list(model.parameters())}]
    return [{"params": trained}, {"params": fresh, "lr": settings.lr * settings.fresh_lr}]


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int
) -> lr_scheduler.LRScheduler:
    """Make the schedule, to be stepped once after each optimizer step."""
    total = settings.epochs * steps + 1
    match settings.schedule:
        case "step":
            return lr_scheduler.MultiStepLR(optimizer, [at * steps for at in settings.milestones])
        case "onecycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            return lr_scheduler.OneCycleLR(optimizer, peaks, total, cycle_momentum=False)
