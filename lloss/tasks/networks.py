"""The networks that learn a task: how each is built, started from trained weights, and trained."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn

from lloss.errors import SettingsError
from lloss.modeling.network import TappedNetwork
from lloss.modeling.pretrained_weights import Start, layer_of, read_state_dict, start_from
from lloss.modeling.published_weights import Published
from lloss.modeling.weights_cache import WeightsUnavailableError
from lloss.tasks.recipes import recipe_of
from lloss.tasks.train_settings import AUTOMATIC, NAMED_WEIGHTS, TrainSettings


class Networks(ABC):
    """What training asks of a network besides its output, by the name in the settings."""

    pretrained: str = "imagenet"  # what to start from where that is left open
    part: str = ""  # the network's module that a state dict is of; "" for all of it

    @abstractmethod
    def defaults(self, model: str) -> dict[str, Any]:
        """Return settings for a model ("": the usual one); ``SettingsError`` for an unknown one."""

    def recipe(self, settings: TrainSettings, pretrained: bool) -> dict[str, Any]:
        """Return how a network is trained where nothing else is asked for.

        These are automatic settings, where ``batch_size`` is the most images; and two others,
        ``steps`` the budget that epochs are made of, ``least_epochs`` the fewest of them.
        ``pretrained`` is whether it starts from trained weights; of ``settings`` only the weights
        are decided.
        """
        return recipe_of(settings.model, settings.optimizer, pretrained)

    def input_sizes(self, settings: TrainSettings) -> tuple[int, int]:
        """Return the smallest and the largest side that is sensible to choose, in pixels.

        The largest is what the network was made for. They are equal where it takes no other.
        """
        return 32, 224

    def resizing(self, settings: TrainSettings) -> dict[str, Any]:
        """Return ``share`` and ``resample`` that trained weights ask for; {} for the usual ones."""
        return {}

    def assumed(self, settings: TrainSettings) -> str:
        """Return a line on what nobody knows of the network's input; "" where all is known."""
        return ""

    @abstractmethod
    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        """Build the network without head: float [N, 3, H, W] to its output."""

    def taps(self, settings: TrainSettings) -> tuple[str, ...]:
        """Name the modules that the head reads; () to have them found."""
        return ()

    @abstractmethod
    def class_layers(self, names: Sequence[str]) -> tuple[str, ...]:
        """Name the parameters and buffers of ``names`` that depend on the classes."""

    def objective_settings(self, settings: TrainSettings) -> TrainSettings:
        """Return the settings that the task's objective is made by."""
        return settings

    def check_output(
        self, model: TappedNetwork, settings: TrainSettings, classes: Sequence[str]
    ) -> None:
        """Refuse a network whose output its objective does not take, with a ``SettingsError``."""
        return

    # Trained weights

    def published(self, settings: TrainSettings, weights: str) -> Published | None:
        """Return the published weights ``imagenet`` or ``coco`` of a network; None without any."""
        return None

    def start_weights(self, settings: TrainSettings) -> tuple[str, str]:
        """Decide what to start from where it is left open, and say why.

        Weights are downloaded here: without them training starts from random ones.
        """
        if settings.weights != AUTOMATIC["weights"]:
            return settings.weights, "as asked for"
        found = self.published(settings, self.pretrained)
        if found is None:
            return "none", f"there are no published weights of {settings.model}"
        try:
            found.fetch()
        except WeightsUnavailableError as error:
            return "none", str(error)
        return self.pretrained, found.title

    def start(
        self, network: nn.Module, settings: TrainSettings, classes: Sequence[str]
    ) -> Start | None:
        """Give a fresh network the weights of the settings; layers of its classes may stay fresh.

        Raises ``SettingsError`` for weights that do not fit, or cannot be had.
        """
        weights, names = settings.weights, list(network.state_dict())
        if weights in ("none", AUTOMATIC["weights"]):
            return None
        of_classes = self.class_layers(names)
        fresh = set(map(layer_of, of_classes))
        if weights not in NAMED_WEIGHTS:
            state = read_state_dict(weights)
            start = start_from(network, state, weights, settings.model, fresh, self.part)
            known = start.taken.issuperset(of_classes)
            return dataclasses.replace(start, classes=tuple(classes) if known else ())
        found = self.published(settings, weights)
        if found is None:
            raise SettingsError(
                f"weights {weights}: there are none of {settings.model}; use --weights none"
            )
        try:
            state = found.state()
        except WeightsUnavailableError as error:
            raise SettingsError(
                f"weights {weights}: {error}; --weights auto goes on without them"
            ) from error
        within = found.part + "." if found.part else ""
        # Their last layer is of other classes, even where there are as many.
        state = {name: v for name, v in state.items() if within + name not in of_classes}
        may_lack = tuple(within + start for start in found.fresh)
        fresh |= {layer_of(name) for name in names if may_lack and name.startswith(may_lack)}
        return start_from(network, state, weights, settings.model, fresh, found.part)
