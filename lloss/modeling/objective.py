"""The model side of a task: what training, measuring and exporting ask of a network's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lloss.images.drawing import Drawing
from lloss.statistics.confidence_intervals import Floats, Interval, bootstrap


class Objective(ABC):
    """The loss, the scores and the metric of one network, for its own classes and settings.

    What ``output`` and ``targets`` are is each objective's own affair. A network from outside
    needs ``loss_per_image`` and ``outputs`` alone.
    """

    summary_size: int = 0
    """Length of :meth:`summary`; 0 without one."""

    @abstractmethod
    def loss_per_image(self, output: Any, targets: Any) -> Tensor:
        """Compute the target network's loss on each image, float [N]."""

    @abstractmethod
    def outputs(self, output: Any) -> dict[str, Tensor]:
        """Compute what the exported graph adds to ``loss`` at no cost, each float [N, ...].

        ``entropy`` is among them: the usual acquisition to compare with.
        """

    def summary(self, output: Any) -> Tensor:
        """Summarize the network's own output for the head, detached, float [N, S]."""
        raise NotImplementedError(f"{type(self).__name__} has no summary")

    def hits(self, output: Any, targets: Any) -> Tensor | None:
        """Compute each image's part in the metric, float [N]; None where that is slow."""
        return None

    def meter(self, labels: Sequence[Any]) -> Meter:
        """Make an empty meter for images of these labels, unknown classes included."""
        raise NotImplementedError(f"{type(self).__name__} has no metric")

    def draw(self, output: Any) -> list[Drawing] | None:
        """Draw what the network found on each image; None where a class name says it all."""
        return None


class Meter(ABC):
    """Gathers what a metric needs, batch by batch, and computes it with 95 % intervals."""

    mirrored: bool = False  # whether `update` also wants the output for the mirrored images
    images: int = 0  # how many were seen

    @abstractmethod
    def update(self, output: Any, targets: Sequence[Any], mirror: Any = None) -> None:
        """Take in a batch: the network's output, and the targets as ``Task.example`` gave them."""

    @abstractmethod
    def resampled(self, weights: Floats) -> Mapping[str, Floats]:
        """Compute the figures, the task's metric first, float [R] by name; NaN where undefined.

        ``weights``, float64 [R, images], are how often each of R draws has each image.
        """

    def support(self) -> dict[str, int]:
        """Count the images that say something of each figure."""
        return {}

    def work(self) -> int:
        """Return how many numbers a draw goes through; 0 for one an image."""
        return 0

    def figures(self) -> dict[str, float]:
        """Compute the task's metric first, 0 to 1, then the other figures."""
        figures = self.resampled(np.ones((1, self.images)))
        return {name: float(value[0]) for name, value in figures.items()}

    def intervals(self) -> dict[str, Interval]:
        """Compute the 95 % intervals of the figures, by the bootstrap over images."""
        return bootstrap(self.images, self.resampled, self.support(), self.work())

    def notes(self) -> list[str]:
        """Name conditions that a printed result must name, such as flip averaging."""
        return []

    def missed(self) -> list[str]:
        """Name, in lines, what of the labels counts as missed whatever the network answers."""
        return []


def unknown_classes_note(
    unknown: Sequence[str], classes: Sequence[str], effect: str, noun: str = "classes"
) -> list[str]:
    """Return a line on classes of the labels that the network lacks; none without any."""
    if not unknown:
        return []
    some = ", ".join(unknown[:8]) + (", …" if len(unknown) > 8 else "")
    count = len(unknown) + len(classes)
    return [f"the network does not know {len(unknown)} of the {count} {noun} ({some}): {effect}"]
