"""A network from outside in the place of one that a task knows by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lloss.entry_points import reason
from lloss.errors import SettingsError
from lloss.modeling.network_source import build_network
from lloss.modeling.objective import Objective
from lloss.modeling.prediction import described
from lloss.modeling.taps import blank_images, evaluating
from lloss.tasks.train_settings import TrainSettings

if TYPE_CHECKING:
    from lloss.tasks.task import Task


def build_outside(task: Task, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
    """Build the network that the settings name, so that it returns what the task's own do."""
    network = build_network(settings.model, len(classes), settings.model_args)

    def predict(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
        return task.prediction(output, inputs[0])

    network.register_forward_hook(predict)  # no wrapper: its modules keep their names
    return network


def usual_settings(task: Task, settings: TrainSettings) -> TrainSettings:
    """Return the settings with the task's usual network, whose objective is that of others too."""
    return dataclasses.replace(settings, model=task.defaults("")["model"], model_args=())


def check_prediction(
    task: Task,
    network: nn.Module,
    objective: Objective,
    settings: TrainSettings,
    classes: Sequence[str],
) -> None:
    """Raise ``SettingsError`` unless the network's output is what the objective takes."""
    images = blank_images(network, (settings.size, settings.size))
    with evaluating(network):
        output = network(images)
    wanted = task.prediction_shape(settings, classes)
    if wanted and (not isinstance(output, Tensor) or tuple(output.shape) != (2, *wanted)):
        raise SettingsError(
            f"model {settings.model!r}: {task.name} of {len(classes)} classes takes "
            f"{[2, *wanted]} of two images, the network gives {described(output)}"
        )
    try:
        objective.outputs(output)
        if objective.summary_size:
            objective.summary(output)
    except Exception as error:
        raise SettingsError(
            f"model {settings.model!r}: its output, {described(output)}, is not what {task.name} "
            f"takes: {reason(error)}"
        ) from error
