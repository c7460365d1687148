"""Meters: what a task's metric needs of each batch, and the figures made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lloss.statistics.confidence_intervals import Clusters, Floats, Interval, bootstrap


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
