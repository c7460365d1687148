"""The model side of a task: what training, measuring and exporting ask of a network's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from lloss.annotations.prediction import Prediction
from lloss.errors import SettingsError
from lloss.statistics.confidence_intervals import Clusters, Floats, Interval, bootstrap


class Objective(ABC):
    """The loss, the scores and the metric of one network, for its own classes and settings.

    Each objective defines what ``output`` and ``targets`` are. A network from outside
    needs only ``loss_per_image`` and ``outputs``.
    """

    summary_size: int = 0
    """Length of :meth:`summary`; 0 without one."""

    loss_unit: str = "the task's own loss"
    """The unit of :meth:`loss_per_image`, as in ``a loss in nats``."""

    own_trainer: str = ""
    """What trains a network that :func:`lloss.fit` does not; "" where it does."""

    def run(self, network: nn.Module, images: Tensor) -> Any:
        """Run the network on float [N, 3, H, W]: what ``output`` is."""
        return network(images)

    @abstractmethod
    def loss_per_image(self, output: Any, targets: Any) -> Tensor:
        """Compute the target network's loss on each image, float [N]."""

    @abstractmethod
    def outputs(self, output: Any) -> dict[str, Tensor]:
        """Compute what the graph exports besides ``loss``, ``entropy`` among it, each [N, ...]."""

    def summary(self, output: Any) -> Tensor:
        """Summarize the network's own output for the head, detached, float [N, S]."""
        raise NotImplementedError(f"{type(self).__name__} has no summary")

    def metric(self, output: Any, targets: Any) -> Tensor | None:
        """Compute how right the network is on each image, float [N]; None without such a number."""
        return None

    def meter(self, labels: Sequence[Any]) -> Meter:
        """Make an empty meter for images of these labels, unknown classes included."""
        raise NotImplementedError(f"{type(self).__name__} has no metric")

    def predictions(self, output: Any) -> list[Prediction] | None:
        """Return what the network found on each image, unsure objects included.

        Places are shares of the input's width and height. None if the task has no labels to show.
        """
        return None


def one_per_image(losses: Any, task: str, images: int | None = None) -> Tensor:
    """Return losses, float [images], as they are.

    Raises ``SettingsError`` for a task's loss of another shape: one number for the whole batch
    would teach the head nothing.
    """
    if not isinstance(losses, Tensor) or losses.ndim != 1:
        shape = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise SettingsError(
            f"loss_per_image of {task} gave {shape}: return one loss per image, float [N]; losses "
            'of torch do so with reduction="none"'
        )
    if images is not None and len(losses) != images:
        raise SettingsError(
            f"loss_per_image of {task} gave {len(losses)} losses for {images} images: return one "
            "loss per image"
        )
    return losses


class Meter(ABC):
    """Gathers what a metric needs, batch by batch, and computes it with 95 % intervals."""

    images: int = 0  # how many were seen

    @abstractmethod
    def update(self, output: Any, targets: Sequence[Any]) -> None:
        """Take in a batch: the network's output, and the targets as ``Task.example`` gave them."""

    @abstractmethod
    def resampled(self, weights: Floats) -> Mapping[str, Floats]:
        """Compute the figures, the task's metric first, float [R] by name; NaN where undefined.

        ``weights``, float64 [R, images], are how often each of R draws has each image.
        """

    def figures(self) -> dict[str, float]:
        """Compute the task's metric first, 0 to 1, then the other figures."""
        figures = self.resampled(np.ones((1, self.images)))
        return {name: float(value[0]) for name, value in figures.items()}

    def intervals(self, clusters: Clusters = None) -> dict[str, Interval]:
        """Compute the 95 % intervals of the figures, by the bootstrap over images.

        ``clusters`` are of images in the order of the updates.
        """
        return bootstrap(self.images, self.resampled, clusters)

    def notes(self) -> list[str]:
        """Name conditions that a printed result must name."""
        return []
