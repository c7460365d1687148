"""Networks from outside in the place of those that a task knows by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lloss.entry_points import reason
from lloss.errors import SettingsError
from lloss.modeling.network import TappedNetwork
from lloss.modeling.network_checks import check_alone, check_logits, check_trainable
from lloss.modeling.network_source import (
    assumptions,
    build_network,
    class_layers,
    network_input,
    preparation,
    published,
)
from lloss.modeling.prediction import described
from lloss.modeling.published_weights import Published
from lloss.modeling.taps import blank_images, evaluating
from lloss.tasks.adapters import detector_of
from lloss.tasks.networks import Networks
from lloss.tasks.recipes import recipe_of
from lloss.tasks.train_settings import PLAIN, TrainSettings

if TYPE_CHECKING:
    from lloss.tasks.task import Task

BUDGET = ("batch_size", "steps", "least_epochs")
"""Of a recipe: how much training is enough, which depends on the task rather than the network."""


class OutsideNetworks(Networks):
    """A network of :mod:`lloss.modeling.network_source` that learns a task.

    Args:
        task: whose objective takes the network's output, see ``Task.prediction``.
        model: the network's name.
        args: ``key=value`` texts for its factory.
    """

    def __init__(self, task: Task, model: str, args: Sequence[str]) -> None:
        self.task, self.model, self.args = task, model, tuple(args)

    def defaults(self, model: str) -> dict[str, Any]:
        """Those of the task's usual network, and the preparation of this one's images."""
        found = preparation(self.model, self.args)
        del found["size"]
        return {**self.task.defaults(""), "model": self.model, **found}

    def recipe(self, settings: TrainSettings, pretrained: bool) -> dict[str, Any]:
        """The recipe of the network's family, with the task's budget."""
        own = self.task.recipe(self.objective_settings(settings), pretrained)
        family = recipe_of(self.model, settings.optimizer, pretrained)
        return {**family, **{name: own[name] for name in BUDGET}}

    def input_sizes(self, settings: TrainSettings) -> tuple[int, int]:
        found = network_input(self.model, self.args)
        return found.least, found.size

    def resizing(self, settings: TrainSettings) -> dict[str, Any]:
        found = network_input(self.model, self.args)
        asked = {"share": found.share, "resample": found.resample}
        if settings.weights == "none" or asked == PLAIN:
            return {}
        return asked if settings.fit == "crop" else {"resample": found.resample}

    def assumed(self, settings: TrainSettings) -> str:
        return assumptions(self.model, self.args, vars(settings))

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        """Build the network so that it returns what the task's own do."""
        network = build_network(self.model, len(classes), self.args)
        if detector_of(network):
            raise SettingsError(
                f"model {self.model!r}: lloss does not train a {type(network).__name__}; train it "
                "with its own library, then use lloss.attach and lloss.fit_head"
            )

        if not settings.freeze:
            check_trainable(network, f"model {self.model!r}", "pass --freeze with --weights FILE")

        def predict(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
            return self.task.prediction(output, inputs[0])

        network.register_forward_hook(predict)  # no wrapper: its modules keep their names
        return network

    def class_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        found = class_layers(self.model, self.args)
        return tuple(name for name in names if name in found)

    def published(self, settings: TrainSettings, weights: str) -> Published | None:
        return published(self.model, self.args) if weights == self.pretrained else None

    def objective_settings(self, settings: TrainSettings) -> TrainSettings:
        """With the task's usual network, whose objective is that of others too."""
        usual = self.task.defaults("")["model"]
        return dataclasses.replace(settings, model=usual, model_args=())

    def check_output(
        self, model: TappedNetwork, settings: TrainSettings, classes: Sequence[str]
    ) -> None:
        """Refuse an output that the objective does not take, or that depends on the batch."""
        network, objective, image = model.network, model.objective, (settings.size, settings.size)
        images = blank_images(network, image)
        with evaluating(network):
            output = network(images)
        task, wanted = self.task.name, self.task.prediction_shape(settings, classes)
        if wanted and (not isinstance(output, Tensor) or tuple(output.shape) != (2, *wanted)):
            raise SettingsError(
                f"model {self.model!r}: {task} of {len(classes)} classes takes {[2, *wanted]} of "
                f"two images, the network gives {described(output)}"
            )
        if task in ("classification", "segmentation"):
            check_logits(output, f"model {self.model!r}")
        try:
            objective.outputs(output)
            if objective.summary_size:
                objective.summary(output)
        except Exception as error:
            raise SettingsError(
                f"model {self.model!r}: its output, {described(output)}, is not what {task} "
                f"takes: {reason(error)}"
            ) from error
        check_alone(model, image, f"model {self.model!r}")
