"""Train the head of a network that is trained already, and stays as it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.errors import LabelError, SettingsError
from lloss.modeling.attached_model import AttachedModel
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.modeling.taps import evaluating
from lloss.statistics.confidence_intervals import (
    Interval,
    in_percent,
    range_in_percent,
    wilson,
)
from lloss.statistics.ranking_metrics import RankingFigures, ranking_figures, ranking_intervals
from lloss.training.labeled_batches import labeled_batches

HEAD_BATCH = 64
STEPS = (600, 3000)  # At least and at most
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2

LEAST = 20  # Images: of fewer, a fifth says nothing

LEARNED, MOST = 0.02, 0.9
"""Where :data:`MOST` of the losses are below this share of the largest, the network may have been
trained on the images."""

FLAT = 0.01
"""Channels that vary less than this share of the mean deviation are scaled no further."""


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
        notes: reasons not to rely on the figures, a line each.
    """

    images: int
    held_out: int
    ranking: RankingFigures
    interval: Interval
    mean_loss: float
    metric: float | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        share = in_percent(self.ranking.ranking_accuracy, self.interval)
        lines = [
            f"the head orders {share} of the pairs of {self.held_out} held-out images right, 95 % "
            f"interval {range_in_percent(self.interval)} (chance 50%)"
        ]
        return "\n".join([*lines, *(f"note: {line}" for line in self.notes)])


@dataclass
class _Cache:
    """What the network made of the images: inputs of the head, float [R, C_k], and losses [R].

    The first ``images`` rows are the images, the others augmented views in the same order.
    """

    inputs: list[Tensor]
    losses: Tensor
    images: int
    metric: float | None

    def rows(self, images: NDArray[np.int64]) -> Tensor:
        """The rows of these images and of their views."""
        starts = range(0, len(self.losses), self.images)
        return torch.from_numpy(np.concatenate([images + start for start in starts]))


def fit_head(
    model: AttachedModel,
    data: Any,
    targets: Any = None,
    *,
    views: int = 0,
    holdout: float = 0.2,
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
            normalized already, with ``targets``; or batches (images float [B, 3, H, W], targets),
            such as a DataLoader's.
        targets: one per image: what ``loss_per_image`` takes, or class names or numbers.
        views: augmented copies of each image, which classification makes of images uint8.
        holdout: share of the images to measure the ranking on.
        loss: a name of :data:`.HEAD_LOSSES`, or a function of (predicted [B], losses [B]).
        seed: of the hold-out, the head's weights and the order of images.

    Raises:
        LabelError: fewer than 20 images, losses that are all equal, or labels that do not fit.
        SettingsError: a loss per image of another shape, or below 0 with ``soft-pairs``.
    """
    compare = HEAD_LOSSES.get(loss) if isinstance(loss, str) else loss
    if compare is None:
        raise SettingsError(f"loss {loss!r}: choose one of {', '.join(HEAD_LOSSES)}")
    if not 0 < holdout <= 0.5:
        raise SettingsError(f"holdout = {holdout}: give a share above 0, of at most 0.5")
    cache = _cached(model, data, targets, views, seed)
    _check(cache, loss)
    order = np.random.default_rng(seed).permutation(cache.images)
    held = order[: max(2, round(holdout * cache.images))]
    head = model.tapped.head
    assert head is not None, "attached models have a head"
    predicted = _predicted(
        _trained(head, cache, cache.rows(order[len(held) :]), compare, seed), cache, held
    )
    whole = _trained(head, cache, torch.arange(len(cache.losses)), compare, seed)
    head.load_state_dict(whole.state_dict())
    losses = cache.losses.cpu().numpy()
    true = losses[held]
    return HeadFit(
        images=cache.images,
        held_out=len(held),
        ranking=ranking_figures(predicted, true),
        interval=ranking_intervals(predicted, true)["ranking_accuracy"],
        mean_loss=float(losses[: cache.images].mean()),
        metric=cache.metric,
        notes=_notes(model, losses[: cache.images], cache.metric),
    )


def _cached(model: AttachedModel, data: Any, targets: Any, views: int, seed: int) -> _Cache:
    """Run the network once over the images and their views."""
    inputs: list[list[Tensor]] = []
    losses: list[Tensor] = []
    metrics: list[Tensor] = []
    images = 0
    batches = labeled_batches(model, data, targets, views, seed)
    with evaluating(model):
        for batch, some, view in batches:
            features = model.tapped.features(batch)
            loss = model.loss_per_image(features.output, some).float()
            if len(loss) != len(batch):
                raise SettingsError(
                    f"loss_per_image of {model.task} gave {len(loss)} losses for {len(batch)} "
                    "images: return one loss per image"
                )
            seen = [*features.pooled, *([] if features.summary is None else [features.summary])]
            inputs.append(seen)
            losses.append(loss)
            images += 0 if view else len(batch)
            metric = None if view else model.objective.metric(features.output, some)
            metrics += [] if metric is None else [metric]
    if not losses:
        raise LabelError("no labeled image: give some to train the head on")
    return _Cache(
        [torch.cat(columns) for columns in zip(*inputs)],
        torch.cat(losses),
        images,
        float(torch.cat(metrics).mean()) if metrics else None,
    )


def _check(cache: _Cache, loss: object) -> None:
    losses = cache.losses
    if cache.images < LEAST:
        raise LabelError(
            f"{cache.images} labeled images are too few for a head: give {LEAST} or more"
        )
    finite = torch.isfinite(losses)
    for values in cache.inputs:
        finite &= torch.isfinite(values).all(1)
    if not finite.all():
        raise LabelError(
            f"{int((~finite).sum())} of {len(losses)} images have an infinite or NaN loss or "
            "feature: check the network, its mode and the normalization of its images"
        )
    if losses[: cache.images].max() == losses[: cache.images].min():
        raise LabelError(
            f"the network has the same loss, {float(losses[0]):.3g}, on all {cache.images} images: "
            "that orders nothing; check the labels"
        )
    if loss == "soft-pairs" and losses.min() < 0:
        raise SettingsError(
            f"a loss of {float(losses.min()):.3g}: soft-pairs takes losses from 0 on; pass "
            'loss="margin"'
        )


def _trained(
    head: LossPredictionHead,
    cache: _Cache,
    rows: Tensor,
    compare: Callable[..., Tensor],
    seed: int,
) -> LossPredictionHead:
    """Train a fresh head on some rows of the cache, standardized; it then takes them as they are.

    Maps differ in scale by a factor of a hundred from network to network.
    """
    rows = rows.to(cache.losses.device)
    inputs, losses = [values[rows] for values in cache.inputs], cache.losses[rows]
    scales = [_scale(values) for values in inputs]
    inputs = [(values - mean) / std for values, (mean, std) in zip(inputs, scales)]
    steps_per_epoch = math.ceil(len(rows) / HEAD_BATCH)
    steps = min(max(STEPS[0], 60 * steps_per_epoch), STEPS[1])
    generator = torch.Generator().manual_seed(seed)
    fresh = _fresh(head, seed)
    optimizer = torch.optim.AdamW(fresh.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    chunks: list[Tensor] = []
    for _ in range(steps):
        if not chunks:
            order = torch.randperm(len(rows), generator=generator)
            chunks = list(order.tensor_split(steps_per_epoch))
        some = chunks.pop().to(rows.device)
        with torch.enable_grad():
            compared = compare(fresh([values[some] for values in inputs]), losses[some])
        optimizer.zero_grad(set_to_none=True)
        compared.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for layer, (mean, std) in zip(fresh.inputs, scales):
            assert isinstance(layer, nn.Linear)
            layer.weight.div_(std)
            layer.bias.sub_(layer.weight @ mean)
    return fresh


def _fresh(head: LossPredictionHead, seed: int) -> LossPredictionHead:
    """A head of the same shape and device with weights of the seed."""
    fresh = copy.deepcopy(head).requires_grad_(True)
    device = fresh.output.weight.device
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        for layer in fresh.cpu().modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return fresh.to(device)


def _scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel; one that hardly varies gets the smallest that counts."""
    std = values.std(0, correction=0)
    floor = std.mean() * FLAT
    return values.mean(0), std.clamp(min=float(floor) or 1.0)


def _predicted(
    head: LossPredictionHead, cache: _Cache, images: NDArray[np.int64]
) -> NDArray[np.float32]:
    rows = cache.rows(images)[: len(images)].to(cache.losses.device)
    with torch.no_grad():
        predicted: Tensor = head([values[rows] for values in cache.inputs])
    return predicted.cpu().numpy()


def _notes(model: AttachedModel, losses: NDArray[np.float32], metric: float | None) -> list[str]:
    """Say where the images may be those of training, or not be prepared as for training."""
    notes, small = [], float((losses < LEARNED * losses.max()).mean())
    if small >= MOST:
        notes.append(
            f"the network has nearly no loss on {small:.0%} of these images. If it was trained on "
            "them, the order of their losses is mostly noise: give images that it was not trained "
            "on, or more views"
        )
    if metric is not None and model.task == "classification":
        within = wilson(metric * len(losses), len(losses))
        if within[0] <= 1 / len(model.classes):
            notes.append(
                f"the network gets {in_percent(metric, within)} of {len(losses)} images right, not "
                "shown to be better than guessing: check its weights, mean and std, and the order "
                "of classes"
            )
    return notes
