"""How good a network from outside is, and how well its head ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lloss.data.near_copies import Groups
from lloss.errors import LabelError
from lloss.modeling.attached_model import AttachedModel
from lloss.statistics.clusters import clusters_of, share_interval
from lloss.statistics.confidence_intervals import (
    Interval,
    bootstrap,
    in_percent,
    in_words,
    range_in_percent,
)
from lloss.statistics.loss_unit import IN_NO_UNIT, LossUnit, fit_unit
from lloss.statistics.ranking_metrics import RankingFigures, accuracy_interval, ranking_figures
from lloss.tasks import get_task, task_names
from lloss.training.feature_cache import run_network
from lloss.training.head_training import predict_losses
from lloss.training.labeled_batches import LabeledImages


@dataclass(frozen=True)
class ModelEvaluation:
    """Figures on labeled images, best those that neither network nor head was trained on.

    Attributes:
        images: how many.
        ranking: how the predicted loss orders them by their true one.
        interval: the 95 % interval of its ranking accuracy.
        mean_loss: of the network.
        metric: the mean of the task's ``metric``, of a classifier its accuracy; None without one.
        metric_interval: its 95 % interval.
        metric_name: its name.
        unit: how the predicted loss becomes one in the task's unit, fitted on these images.
        groups: near-duplicates among them, each group of which the intervals count as one.
    """

    images: int
    ranking: RankingFigures
    interval: Interval
    mean_loss: float
    metric: float | None = None
    metric_interval: Interval | None = None
    metric_name: str = "metric"
    unit: LossUnit = IN_NO_UNIT
    groups: Groups | None = None

    def __str__(self) -> str:
        share = in_percent(self.ranking.ranking_accuracy, self.interval)
        line = (
            f"the head orders {share} of the pairs of {self.images} images right, 95 % interval "
            f"{range_in_percent(self.interval)} (chance 50%)"
        )
        if self.groups and self.groups.copies:
            line += f"; intervals count {self.groups.apart} groups of near-duplicates"
        if self.metric is None:
            return line
        return f"{self.metric_name} {in_words(self.metric, self.metric_interval)}; {line}"


def evaluate(model: AttachedModel, data: Any, targets: Any = None) -> ModelEvaluation:
    """Measure network and head on labeled images, in eval mode.

    Args:
        model: from :func:`lloss.attach`, its head trained.
        data: labeled images, as :func:`lloss.fit_head` takes them.
        targets: likewise.

    Raises:
        LabelError: fewer than two images, or labels that do not fit.
        SettingsError: a loss per image of another shape.
    """
    return measure_model(model, LabeledImages.of(model, data, targets))


def measure_model(model: AttachedModel, labeled: LabeledImages) -> ModelEvaluation:
    """Measure on images that are decoded already; see :func:`evaluate`."""
    cache = run_network(model, labeled, grouped=True)
    if cache.images < 2:
        raise LabelError("one image cannot be ranked; give at least 2")
    losses, groups = cache.image_losses, cache.groups
    scenes = None if groups is None else clusters_of(groups.first)
    predicted = predict_losses(model.head, cache, np.arange(cache.images))
    interval: Interval | None = None
    if cache.metrics is not None:
        metrics = cache.metrics.double().cpu().numpy()
        interval = bootstrap(len(metrics), lambda w: {"": w @ metrics / w.sum(1)}, scenes)[""]
        if np.isin(metrics, (0, 1)).all():
            interval = share_interval(float(metrics.sum()), metrics, scenes)
    return ModelEvaluation(
        images=cache.images,
        ranking=ranking_figures(predicted, losses),
        interval=accuracy_interval(predicted, losses, clusters=scenes),
        mean_loss=float(losses.mean()),
        metric=cache.metric,
        metric_interval=interval,
        metric_name=get_task(model.task).metric if model.task in task_names() else "metric",
        unit=fit_unit(predicted, losses, model.objective.loss_unit, "images measured on", scenes),
        groups=groups,
    )
