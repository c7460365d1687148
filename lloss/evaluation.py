"""A trained network on held-out labeled images: its metric, and how well the head ranks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.checkpoint import Checkpoint
from lloss.decoding import decode_all
from lloss.files import written_aside
from lloss.images import ImageSpec
from lloss.labels import LabeledSet
from lloss.network import TappedNetwork
from lloss.ranking import RankingFigures, ranking_figures
from lloss.settings import TrainSettings
from lloss.training import predict


@dataclass(frozen=True)
class Evaluation:
    """Figures on N held-out images.

    Attributes:
        images: N.
        unseen: how many of them are of classes that the model was never shown: misses, of no
            known loss, and left out of the ranking.
        metric_name: ``accuracy`` for classification.
        metric: its value, 0 to 1.
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
            "mean_loss": self.mean_loss,
            "head": _known(self.head) if self.head else None,
            "entropy": _known(self.entropy),
        }


def _known(figures: RankingFigures) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: x if math.isfinite(x) else None for name, x in asdict(figures).items()}


def measure(
    model: TappedNetwork,
    settings: TrainSettings,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    unseen: int = 0,
) -> Evaluation:
    """Evaluate on images of the input's size, uint8 [N, H, W, 3], and targets, int64 [N].

    ``unseen`` images more, of classes that the network does not have, count as misses.
    """
    losses, entropies, hits, predicted = [], [], [], []
    device = next(model.parameters()).device
    with torch.no_grad():
        for rows, forward in predict(model, settings, images):
            truth = torch.from_numpy(targets[rows]).to(device)
            losses.append(model.task.loss_per_image(forward.output, truth).cpu().numpy())
            hits.append(model.task.hits(forward.output, truth).cpu().numpy())
            entropies.append(model.task.outputs(forward.output)["entropy"].cpu().numpy())
            if forward.loss is not None:
                predicted.append(forward.loss.float().cpu().numpy())
    true_loss = np.concatenate(losses)
    predicted_loss = np.concatenate(predicted) if predicted else None
    return Evaluation(
        images=len(images) + unseen,
        unseen=unseen,
        metric_name=model.task.metric,
        metric=float(np.concatenate(hits).sum()) / (len(images) + unseen),
        mean_loss=float(true_loss.mean()),
        head=ranking_figures(predicted_loss, true_loss) if predicted_loss is not None else None,
        entropy=ranking_figures(np.concatenate(entropies), true_loss),
        true_loss=true_loss,
        predicted_loss=predicted_loss,
    )


def evaluate_checkpoint(checkpoint: Checkpoint, labeled: LabeledSet) -> Evaluation:
    """Evaluate a run, finished or not, on labeled images.

    Raises:
        LabelError: no label that the model knows, or an image that cannot be read.
    """
    settings = checkpoint.settings
    everything, classes = len(labeled), set(checkpoint.classes)
    seen = [row for row, label in enumerate(labeled.labels) if label in classes]
    if not seen:
        labeled.targets(checkpoint.classes)  # says which label is unknown
    labeled = labeled.take(seen)
    targets = labeled.targets(checkpoint.classes)
    spec = ImageSpec(settings.size, settings.size, settings.fit)
    images = decode_all(labeled.items, spec, what="held-out")
    return measure(checkpoint.network(), settings, images, targets, everything - len(seen))


def scatter(found: Evaluation, path: Path) -> None:
    """A PNG of predicted against true loss, one point an image."""
    from matplotlib.figure import Figure  # only here, and heavy

    assert found.predicted_loss is not None and found.head is not None, "there is a head"
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    size = max(2.0, min(18.0, 4000 / len(found.true_loss)))
    axes.scatter(found.predicted_loss, found.true_loss, s=size, alpha=0.5, linewidths=0)
    axes.set_yscale("symlog", linthresh=1e-2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("predicted loss (a score to rank by, in no unit)")
    axes.set_ylabel("true loss (nats)")
    axes.set_title(
        f"{found.images} held-out images: {found.head.ranking_accuracy:.1%} of pairs ordered "
        f"right, Spearman {found.head.spearman:.2f}",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=130)
