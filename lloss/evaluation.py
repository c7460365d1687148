"""A trained network on held-out labeled images: its metric, and how well the head ranks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.checkpoint import Checkpoint
from lloss.examples import load_examples
from lloss.files import written_aside
from lloss.labels import LabeledSet
from lloss.network import TappedNetwork
from lloss.ranking import RankingFigures, ranking_figures
from lloss.settings import TrainSettings
from lloss.tasks import get_task
from lloss.training import TrainingData, predict


@dataclass(frozen=True)
class Evaluation:
    """Figures on N held-out images.

    Attributes:
        images: N.
        unseen: how many of them are of classes that the model was never shown: misses, of no
            known loss, and left out of the ranking.
        metric_name: the task's, such as ``accuracy``.
        metric: its value, 0 to 1.
        figures: what else the task's meter tells, by name.
        notes: conditions of the figures that must be named with them.
        mean_loss: of the target network.
        head: how the predicted loss ranks; None for a network without a head.
        entropy: how the entropy of the same network ranks.
        true_loss: float [N].
        predicted_loss: float [N], or None.
    """

    images: int
    unseen: int
    metric_name: str
    metric: float
    figures: dict[str, float]
    notes: list[str]
    mean_loss: float
    head: RankingFigures | None
    entropy: RankingFigures
    true_loss: NDArray[np.float32]
    predicted_loss: NDArray[np.float32] | None

    def as_dict(self) -> dict[str, Any]:
        """The figures without the arrays, for JSON."""
        return {
            "images": self.images,
            "unseen": self.unseen,
            self.metric_name: self.metric,
            **({"figures": _finite(self.figures)} if self.figures else {}),
            **({"notes": self.notes} if self.notes else {}),
            "mean_loss": self.mean_loss,
            "head": _finite(asdict(self.head)) if self.head else None,
            "entropy": _finite(asdict(self.entropy)),
        }


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: x if math.isfinite(x) else None for name, x in figures.items()}


def measure(
    model: TappedNetwork, settings: TrainSettings, data: TrainingData, labels: Sequence[Any] = ()
) -> Evaluation:
    """Evaluate on held-out images.

    Args:
        model: to evaluate.
        settings: it was trained with.
        data: decoded at the input's size.
        labels: of these images and of those besides that the network can have no loss on, as their
            classes are none of its own; none for those of ``data`` alone.
    """
    task = model.task
    meter = task.meter(labels, data.classes, settings)
    losses, entropies, predicted = [], [], []
    mirror = _mirrored(model, settings, data) if meter.mirrored else itertools.repeat(None)
    device = next(model.parameters()).device
    with torch.no_grad():
        for (rows, forward), mirrored in zip(predict(model, settings, data.images), mirror):
            targets = list(data.targets[rows])
            together = task.collate(targets, settings).to(device)
            found = task.loss_per_image(forward.output, together, settings)
            losses.append(found.cpu().numpy())
            entropies.append(task.outputs(forward.output)["entropy"].cpu().numpy())
            meter.update(forward.output, targets, mirrored)
            if forward.loss is not None:
                predicted.append(forward.loss.float().cpu().numpy())
    true_loss = np.concatenate(losses)
    predicted_loss = np.concatenate(predicted) if predicted else None
    figures = meter.figures()
    images = max(len(labels), len(data.images))
    return Evaluation(
        images=images,
        unseen=images - len(data.images),
        metric_name=task.metric,
        metric=figures.pop(task.metric),
        figures=figures,
        notes=meter.notes(),
        mean_loss=float(true_loss.mean()),
        head=ranking_figures(predicted_loss, true_loss) if predicted_loss is not None else None,
        entropy=ranking_figures(np.concatenate(entropies), true_loss),
        true_loss=true_loss,
        predicted_loss=predicted_loss,
    )


def _mirrored(model: TappedNetwork, settings: TrainSettings, data: TrainingData) -> Iterator[Any]:
    """The network's output for the images mirrored left to right, batch by batch."""
    for _, forward in predict(model, settings, data.images[:, :, ::-1]):
        yield forward.output


def evaluate_checkpoint(checkpoint: Checkpoint, labeled: LabeledSet) -> Evaluation:
    """Evaluate a run, finished or not, on labeled images.

    Raises:
        LabelError: no label that the model knows, or an image that cannot be read.
    """
    settings, task = checkpoint.settings, get_task(checkpoint.settings.task)
    labels, classes = labeled.labels, checkpoint.classes
    known = [row for row, label in enumerate(labels) if task.known(label, classes)]
    # Where there is none, the first one says what is wrong with it.
    seen = labeled.take(known or [0])
    data = load_examples(seen, classes, settings, what="held-out")
    return measure(checkpoint.network(), settings, data, labels)


def scatter(found: Evaluation, unit: str, path: Path) -> None:
    """A PNG of predicted against true loss (in ``unit``), one point an image."""
    from matplotlib.figure import Figure  # only here, and heavy

    assert found.predicted_loss is not None and found.head is not None, "there is a head"
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    size = max(2.0, min(18.0, 4000 / len(found.true_loss)))
    axes.scatter(found.predicted_loss, found.true_loss, s=size, alpha=0.5, linewidths=0)
    axes.set_yscale("symlog", linthresh=1e-2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("predicted loss (a score to rank by, in no unit)")
    axes.set_ylabel(f"true loss ({unit})" if unit else "true loss")
    axes.set_title(
        f"{found.images} held-out images: {found.head.ranking_accuracy:.1%} of pairs ordered "
        f"right, Spearman {found.head.spearman:.2f}",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=130)
