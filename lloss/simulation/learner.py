"""What a simulation asks of a learner: train on labeled rows, measure, and score the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lloss.selection.automatic import Evidence
from lloss.simulation.methods import Method
from lloss.simulation.scenarios import TrialPool
from lloss.statistics.ranking_metrics import pair_counts, spearman

Columns = dict[str, NDArray[np.float32]]

RANKED = 2000
"""Test images, at most, that the rankings are measured on: all pairs of them are compared."""


@dataclass(frozen=True)
class Measured:
    """Figures on the test set.

    Attributes:
        figures: the task's, its metric first; of a classifier also ``macro accuracy``, the mean of
            the classes' recalls, and ``recall of CLASS`` of each.
        head: ``ranking_accuracy`` and ``spearman`` of the predicted loss; None without a head.
        entropy: the same of the entropy.
    """

    figures: dict[str, float]
    head: dict[str, float] | None
    entropy: dict[str, float] | None


class Model(Protocol):
    """What one cycle trained."""

    def measure(self) -> Measured:
        """Measure on the test set."""

    def columns(self, wanted: Sequence[str]) -> Columns:
        """Score the whole pool, [P, ...] each: the exported columns, and those wanted besides."""

    def outputs(self) -> NDArray[np.float32]:
        """Return the outputs for the whole pool, for temporal output discrepancy: [P, ...]."""

    def evidence(self) -> Evidence:
        """Return how well predicted loss and entropy rank labeled images not trained on."""

    def losses(self, rows: NDArray[np.int64], labels: Sequence[Any]) -> NDArray[np.float32]:
        """Return the true losses on rows of the pool, int64 [N], of these labels: [N]."""


class Learner(Protocol):
    """Trains on rows of the pool of a trial; all randomness comes from the seed."""

    def open(self, pool: TrialPool) -> None:
        """Load the images of a trial's pool."""

    def train(
        self, rows: NDArray[np.int64], labels: Sequence[Any], method: Method, seed: int
    ) -> Model:
        """Train on rows of the pool, int64 [L], with these labels."""


def ranking(score: NDArray[Any], loss: NDArray[Any]) -> dict[str, float]:
    """Return how a score orders images by their loss: of :data:`RANKED` spread over all."""
    some = np.linspace(0, len(loss) - 1, min(RANKED, len(loss))).astype(int)
    score, loss = score[some], loss[some]
    right, pairs = pair_counts(score, loss)
    return {
        "ranking_accuracy": right / pairs if pairs else float("nan"),
        "spearman": spearman(score, loss),
    }


def class_figures(
    predicted: NDArray[np.int64], true: NDArray[np.int64], names: Sequence[str]
) -> dict[str, float]:
    """Return accuracy, its mean over the classes that the test set shows, and each one's recall."""
    right = predicted == true
    recalls = {
        name: float(right[true == number].mean())
        for number, name in enumerate(names)
        if (true == number).any()
    }
    return {
        "accuracy": float(right.mean()),
        "macro accuracy": float(np.mean(list(recalls.values()))),
        **{f"recall of {name}": value for name, value in recalls.items()},
    }


def shown_figures(
    figures: Mapping[str, float], metric: str, watched: str, counts: Mapping[str, int]
) -> dict[str, float]:
    """Return the figures of a row: the metric first, then others, the worst class, the watched one.

    ``counts`` are the labeled images of each class.
    """
    recalls = {name: value for name, value in figures.items() if name.startswith("recall of ")}
    others = {k: v for k, v in figures.items() if k not in recalls and k != metric}
    shown = {metric: figures[metric], **others}
    if recalls:
        shown["worst class"] = min(recalls.values())
    if watched:
        shown[f"recall of {watched}"] = figures.get(f"recall of {watched}", float("nan"))
        shown[f"count of {watched}"] = float(counts.get(watched, 0))
    return shown
