"""The model side of a task for networks from outside: their outputs, and losses of one's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lloss.annotations.prediction import Prediction
from lloss.errors import SettingsError
from lloss.manifest import EMBEDDING, PRETRAINED_EMBEDDING
from lloss.modeling.objective import Objective
from lloss.modeling.prediction import prediction_of

RESERVED = ("id", "loss", EMBEDDING, PRETRAINED_EMBEDDING)
"""Outputs of every graph, which a task cannot have under the same name."""


class NamedObjective(Objective):
    """A task of lloss, of the prediction in whatever a network from outside returns."""

    def __init__(self, objective: Objective) -> None:
        self.inner = objective
        self.loss_unit = objective.loss_unit
        self.summary_size = objective.summary_size

    def loss_per_image(self, output: Any, targets: Any) -> Tensor:
        return self.inner.loss_per_image(prediction_of(output), targets)

    def outputs(self, output: Any) -> dict[str, Tensor]:
        return self.inner.outputs(prediction_of(output))

    def summary(self, output: Any) -> Tensor:
        return self.inner.summary(prediction_of(output))

    def predictions(self, output: Any) -> list[Prediction] | None:
        return self.inner.predictions(prediction_of(output))

    def metric(self, output: Any, targets: Any) -> Tensor | None:
        return self.inner.metric(prediction_of(output), targets)


class OwnObjective(Objective):
    """A user's object: ``loss_per_image``, and if it has them ``outputs`` and ``summary``."""

    def __init__(self, task: Any) -> None:
        if not callable(getattr(task, "loss_per_image", None)):
            raise SettingsError(
                f"task {task!r}: give a task's name, or an object with "
                "loss_per_image(output, targets) -> float [N]"
            )
        self.task = task
        self.loss_unit = str(getattr(task, "loss_unit", self.loss_unit))

    def loss_per_image(self, output: Any, targets: Any) -> Tensor:
        losses: Tensor = self.task.loss_per_image(output, targets)
        return losses

    def outputs(self, output: Any) -> dict[str, Tensor]:
        if not hasattr(self.task, "outputs"):
            return {}
        return {name: value.float() for name, value in self.task.outputs(output).items()}

    def summary(self, output: Any) -> Tensor:
        summary: Tensor = self.task.summary(output)
        return summary.detach().float()

    def metric(self, output: Any, targets: Any) -> Tensor | None:
        """Compute the user's metric on each image, float [N]; None without one."""
        if not hasattr(self.task, "metric"):
            return None
        return torch.as_tensor(self.task.metric(output, targets)).float()

    def probe(self, output: Any) -> None:
        """Find the summary's length on the output of two images, and check the outputs."""
        if hasattr(self.task, "summary"):
            summary = self.summary(output)
            if summary.ndim != 2 or len(summary) != 2:
                raise ValueError(f"summary is {list(summary.shape)} for two images, not [2, S]")
            self.summary_size = summary.shape[1]
        for name, value in self.outputs(output).items():
            if name in RESERVED:
                raise ValueError(f"the output {name!r}: every graph has one of this name already")
            if not value.ndim or len(value) != 2:
                raise ValueError(
                    f"the output {name!r} is {list(value.shape)} for two images, not [2, ...]"
                )
