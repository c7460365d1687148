"""Tasks: what a network is trained for. One object answers all that the rest needs to know.

A new task is one new module here with an object ``TASK``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from lloss.errors import SettingsError
from lloss.settings import TrainSettings

NAMES = ("classification",)


class Task(Protocol):
    """The network's output is the task's own affair; here it is ``Any``."""

    name: str
    metric: str
    """What :meth:`measure` reports first and the learning curve shows, higher being better."""

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        """The network: float [N, 3, H, W] to its output."""

    def augment(
        self, images: Tensor, targets: Tensor, settings: TrainSettings, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """A random change of a batch, uint8 [N, H, W, 3], and of its targets."""

    def loss_per_image(self, output: Any, targets: Tensor) -> Tensor:
        """The target network's loss on each image, float [N]."""

    def summary_size(self, classes: Sequence[str]) -> int:
        """The length of :meth:`summary`."""

    def summary(self, output: Any) -> Tensor:
        """What the head may know of the network's own output, detached, float [N, S]."""

    def outputs(self, output: Any) -> dict[str, Tensor]:
        """What the exported graph adds to ``loss`` at no cost, each float [N, ...]."""

    def hits(self, output: Any, targets: Tensor) -> Tensor:
        """Each image's part in the metric, float [N], so that the metric is its mean."""


def get_task(name: str) -> Task:
    """The task of this name.

    Raises:
        SettingsError: there is none.
    """
    if name not in NAMES:
        raise SettingsError(f"task {name!r}: choose one of {', '.join(NAMES)}")
    task: Task = importlib.import_module(f"lloss.tasks.{name}").TASK
    return task
