"""Train the head of a network that is trained already, and stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lloss.data.near_copies import Groups
from lloss.errors import LabelError, SettingsError
from lloss.modeling.attached_model import AttachedModel
from lloss.modeling.head_losses import HEAD_LOSSES, HeadLoss
from lloss.statistics.clusters import among, clusters_of, share_interval
from lloss.statistics.confidence_intervals import (
    Interval,
    in_percent,
    range_in_percent,
)
from lloss.statistics.loss_unit import IN_NO_UNIT, LossUnit, fit_unit
from lloss.statistics.ranking_metrics import RankingFigures, accuracy_interval, ranking_figures
from lloss.text.counts import part
from lloss.training.feature_cache import FeatureCache, run_network
from lloss.training.head_choice import HeadChoice
from lloss.training.head_stack import is_constant
from lloss.training.head_training import (
    folds_of,
    held_out_rows,
    level_of,
)
from lloss.training.labeled_batches import LabeledImages
from lloss.training.ranking_evidence import comparison, finite

LEAST = 20  # Images: of fewer, no figure says anything

FEW = 250
"""Below so many images, of which a fifth is fewer than 50, all are held out in turn."""

FOLDS = 5
HOLDOUT = 0.2

LEARNED, MOST = 0.02, 0.9
"""Where :data:`MOST` of the losses are below this share of the largest, the network may have been
trained on the images."""


@dataclass(frozen=True)
class HeadFit:
    """How well a head, trained on the other images, ranks held-out ones.

    Attributes:
        images: labeled images, of which ``held_out`` were not trained on for these figures. The
            head that the model has now was then trained on all.
        ranking: how the predicted loss orders the held-out images by their true one.
        interval: the 95 % interval of its ranking accuracy.
        mean_loss: of the network on all images.
        metric: the mean of the task's ``metric`` on all images, of a classifier its accuracy; None
            without one.
        metric_interval: its 95 % interval as of a share of images; None without a metric.
        notes: reasons not to rely on the figures, a line each.
        reads: a line on whether the head reads feature maps, see :class:`.HeadChoice`; "" where
            there was nothing to choose.
        entropy: how the entropy of the network's output orders them; None without one.
        compared: the two rankings, see :func:`.comparison`.
        groups: near-duplicates, which were held out together; None where they were not looked for.
        folds: 1 where a part was held out once; above it, all images were held out in so many
            parts, each ranked by a head of its own (cross-validation).
        unit: how the predicted loss becomes one in the task's unit, fitted on the held-out images.
    """

    images: int
    held_out: int
    ranking: RankingFigures
    interval: Interval
    mean_loss: float
    metric: float | None = None
    metric_interval: Interval | None = None
    notes: list[str] = field(default_factory=list)
    reads: str = ""
    folds: int = 1
    groups: Groups | None = None
    entropy: RankingFigures | None = None
    compared: dict[str, Any] = field(default_factory=dict)
    unit: LossUnit = IN_NO_UNIT

    @property
    def conditions(self) -> list[str]:
        """What must be named with the figures: near-duplicates that were found, and ``notes``."""
        return [*filter(None, [str(self.groups or "")]), *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Return the ranking as :meth:`.Evaluation.as_dict` does, for JSON."""
        figures = {
            "images": self.held_out,
            "folds": self.folds,
            "notes": self.conditions,
            "reads": self.reads,
            **({"apart": self.groups.apart} if self.groups else {}),
            "mean_loss": self.mean_loss,
            "head": asdict(self.ranking),
            "entropy": self.entropy and asdict(self.entropy),
            "intervals": {
                "head": {"ranking_accuracy": self.interval},
                "entropy": {"ranking_accuracy": self.compared.get("entropy_interval")},
            },
            "comparison": self.compared,
        }
        return dict(finite(figures))

    def __str__(self) -> str:
        share = in_percent(self.ranking.ranking_accuracy, self.interval)
        how = f" ({self.folds}-fold cross-validation)" if self.folds > 1 else ""
        lines = [
            f"the head orders {share} of the pairs of {self.held_out} held-out images right{how}, "
            f"95 % interval {range_in_percent(self.interval)} (chance 50%)",
            *filter(None, [self.reads]),
            f"the predicted loss is {self.unit}",
        ]
        return "\n".join([*lines, *(f"note: {line}" for line in self.conditions)])


def fit_head(
    model: AttachedModel,
    data: Any,
    targets: Any = None,
    *,
    views: int = 0,
    holdout: float = 0,
    loss: str | Callable[[Tensor, Tensor], Tensor] = "soft-pairs",
    seed: int = 0,
) -> HeadFit:
    """Train the head on the losses that a trained, frozen network has on labeled images.

    One pass in eval mode keeps the pooled features and the losses; the head then trains on these in
    seconds, in place and from fresh weights. Give images that the network was **not** trained on,
    such as its validation set: on training images the losses are near 0 and their order is noise.
    If there are no others, ``views`` keep the losses apart to some extent.

    Args:
        model: from :func:`lloss.attach`, on the device to compute on.
        data: a :class:`.LabeledSet` (see :func:`lloss.open_labeled`); images as
            :meth:`lloss.Scorer.score` takes them, with ``targets``; a tensor float [N, 3, H, W],
            normalized already, with ``targets``; a dataset of pairs (image float [3, H, W],
            target); or batches (images float [B, 3, H, W], targets), such as a DataLoader's.
        targets: one per image: what ``loss_per_image`` takes, or class names or numbers.
        views: augmented copies of each image uint8, which classification makes, or the ``augment``
            of a task of one's own.
        holdout: share of the images to measure the ranking on; by default a fifth, and below 250
            images all of them by cross-validation in five parts.
        loss: a name of :data:`.HEAD_LOSSES`, or a function of (predicted [B], losses [B]).
        seed: of the hold-out, the head's weights and the order of images.

    Raises:
        LabelError: fewer than 20 images, losses or feature maps that are all equal, or labels that
            do not fit.
        SettingsError: a loss per image of another shape, or below 0 with ``soft-pairs``.
    """
    compare = HEAD_LOSSES.get(loss) if isinstance(loss, str) else loss
    if compare is None:
        raise SettingsError(f"loss {loss!r}: choose one of {', '.join(HEAD_LOSSES)}")
    if not 0 <= holdout <= 0.5:
        raise SettingsError(f"holdout = {holdout}: give a share above 0, of at most 0.5")
    for name, number in (("views", views), ("seed", seed)):
        if not isinstance(number, int) or number < 0:
            raise SettingsError(f"{name} = {number!r}: give a whole number from 0 on")
    cache = run_network(model, LabeledImages.of(model, data, targets), views, seed, grouped=True)
    return fit_cached_head(model, cache, compare, holdout, seed)


def fit_cached_head(
    model: AttachedModel, cache: FeatureCache, compare: HeadLoss, holdout: float = 0, seed: int = 0
) -> HeadFit:
    """Train the head on cached features; see :func:`fit_head`."""
    _check(cache, compare)
    groups = None if cache.groups is None else cache.groups.first
    scenes = None if groups is None else clusters_of(groups)
    folds = _folds(cache.images, holdout, seed, groups)
    head = model.tapped.head
    assert head is not None, "attached models have a head"
    choice = HeadChoice(head, cache, compare, seed, folds)
    found, whole = choice.held_out, choice.trained()
    head.load_state_dict(whole.state_dict())
    held, losses = folds >= 0, cache.image_losses
    apart, within = among(scenes, held), _metric_interval(cache, scenes)
    figures = found.predicted[held], losses[held]
    entropy = None if cache.entropies is None else cache.entropies.cpu().numpy()[held]
    # As the head of all images would have predicted them
    above = found.predicted - found.levels + level_of(whole, choice.cache, np.arange(cache.images))
    source = "held-out images"
    if held.all():
        source = f"images, by {folds.max() + 1}-fold cross-validation"
    model.unit = fit_unit(above[held], losses[held], model.objective.loss_unit, source, apart)
    return HeadFit(
        images=cache.images,
        held_out=int(held.sum()),
        ranking=ranking_figures(*figures, folds=folds[held]),
        interval=accuracy_interval(*figures, folds=folds[held], clusters=apart),
        mean_loss=float(losses.mean()),
        metric=cache.metric,
        metric_interval=within,
        notes=_notes(model, losses, cache, within),
        reads=choice.note,
        folds=int(folds.max()) + 1,
        groups=cache.groups,
        unit=model.unit,
        entropy=None
        if entropy is None
        else ranking_figures(entropy, losses[held], folds=folds[held]),
        compared=comparison(losses[held], figures[0], entropy, folds[held], apart),
    )


def _folds(
    images: int, holdout: float, seed: int, groups: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Draw folds of cross-validation, or one to hold out, with -1 for the others."""
    if not holdout and images < FEW:
        return folds_of(images, FOLDS, seed, groups)
    folds = np.full(images, -1)
    count = max(2, round((holdout or HOLDOUT) * images))
    folds[held_out_rows(images, count, seed, groups)] = 0
    return folds


def _metric_interval(cache: FeatureCache, scenes: NDArray[np.int64] | None) -> Interval | None:
    if cache.metrics is None or cache.metric is None:
        return None
    each = cache.metrics.double().cpu().numpy()
    return share_interval(cache.metric * cache.images, each, scenes)


def refuse_few(images: int) -> None:
    """Refuse to train a head on so few images."""
    if images < LEAST:
        raise LabelError(f"{images} labeled images are too few for a head: give {LEAST} or more")


def _check(cache: FeatureCache, compare: HeadLoss) -> None:
    losses = cache.losses
    refuse_few(cache.images)
    finite = torch.isfinite(losses)
    for values in cache.inputs:
        finite &= torch.isfinite(values).all(1)
    if not finite.all():
        raise LabelError(
            f"{part(int((~finite).sum()), len(losses), 'images', 'have')} an infinite or NaN loss "
            "or feature: check the network, its mode and the normalization of its images"
        )
    if losses[: cache.images].max() == losses[: cache.images].min():
        raise LabelError(
            f"the network has the same loss, {float(losses[0]):.3g}, on all {cache.images} images: "
            "that orders nothing; check the labels"
        )
    if all(map(is_constant, cache.inputs)):
        raise LabelError(
            f"the network gives the same feature maps for all {cache.images} images, so that a "
            "head has nothing to rank them by: check its weights. After few steps of training its "
            "batch norm may be the cause, whose running statistics, used in eval mode, are still "
            "near their start: train longer, or with a momentum of 0.1"
        )
    if compare is HEAD_LOSSES["soft-pairs"] and losses.min() < 0:
        raise SettingsError(
            f"a loss of {float(losses.min()):.3g}: soft-pairs takes losses from 0 on; pass "
            'loss="margin"'
        )


def _notes(
    model: AttachedModel,
    losses: NDArray[np.float32],
    cache: FeatureCache,
    within: Interval | None,
) -> list[str]:
    """Say where the images may be those of training, or not be prepared as for training."""
    metric, (least, largest) = cache.metric, cache.span
    notes, small = [], float((losses < LEARNED * losses.max()).mean())
    if small >= MOST:
        notes.append(
            f"the network has nearly no loss on {small:.0%} of these images. If it was trained on "
            "them, the order of their losses is mostly noise: give images that it was not trained "
            "on, or more views"
        )
    if 0 <= least < largest <= 1 and any(model.preparation.mean):
        notes.append(
            "all values of the images are from 0 to 1, as before normalization: a scorer "
            "normalizes them by mean and std of model.preparation; do so too, or attach with "
            "mean=(0, 0, 0) and std=(1, 1, 1)"
        )
    classes = model.classes if model.task == "classification" else ()
    if within is not None and classes and within[0] <= 1 / len(classes):
        notes.append(
            f"the network gets {in_percent(metric, within)} of {len(losses)} images right, not "
            "shown to be better than guessing: check its weights, mean and std, and the order "
            "of classes"
        )
    return notes
