"""The head, trained on cached features, and how well it ranks images that it was not trained on."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HeadLoss
from lloss.training.feature_cache import FeatureCache

HEAD_BATCH = 64
STEPS = 200
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
"""With 3 to 10 times as many steps at a third of the rate heads rank the losses of other images
worse, at 100 to 2,000 labels: see ``benchmarks/LOG.md``."""

FLAT = 0.01
"""Channels that vary less than this share of the mean deviation are scaled no further."""

STEADY = 1e-3
"""Nor are channels that vary less than this share of the map's own size: float32 computes it to
some 1e-6, and another engine would disagree about what is scaled up further. Those that vary less
than this share of their own size are left out."""


@dataclass(frozen=True)
class HeldOut:
    """Predictions of images by heads that were trained without them."""

    predicted: NDArray[np.float32]  # [images]
    levels: NDArray[np.float64]  # of the head that predicted each, [images]: see `level_of`


def train_head(
    head: LossPredictionHead,
    cache: FeatureCache,
    rows: Tensor,
    compare: HeadLoss,
    seed: int,
) -> LossPredictionHead:
    """Train a fresh head on some rows of the cache, standardized; it then takes them as they are.

    Maps differ in scale by a factor of a hundred from network to network. It takes a third of a
    second on a core.
    """
    rows = rows.to(cache.losses.device)
    inputs, losses = [values[rows] for values in cache.inputs], cache.losses[rows]
    scales = [scale_of(values) for values in inputs]
    inputs = [(values - mean) / std for values, (mean, std) in zip(inputs, scales)]
    steps_per_epoch = math.ceil(len(rows) / HEAD_BATCH)
    generator = torch.Generator().manual_seed(seed)
    fresh = _fresh(head, seed)
    optimizer = torch.optim.AdamW(fresh.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS + 1)
    chunks: list[Tensor] = []
    for _ in range(STEPS):
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
    for layer, scale in zip(fresh.inputs, scales):
        assert isinstance(layer, nn.Linear)
        unscale(layer, *scale)
    return fresh


def folds_of(
    images: int, folds: int, seed: int, groups: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Draw folds: the number of each image's, int64 [images].

    They are of equal sizes, or by one, where ``groups`` of :func:`.groups_of` are not given, or
    each is of one image; else of equal numbers of groups, none of them in two folds.
    """
    drawn = np.random.default_rng(seed).permutation(images)
    if groups is None:
        return drawn % folds
    first, group = np.unique(groups, return_inverse=True)
    return (drawn[first].argsort().argsort() % folds)[group]


def held_out_rows(
    images: int, count: int, seed: int, groups: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Draw images to hold out, whole groups: ``count`` of them, or fewer where no group fills it.

    Where no two images fit, the smallest groups are held out.
    """
    order = np.random.default_rng(seed).permutation(images)
    if groups is None:
        return order[:count]
    sizes, taken, left = np.bincount(groups, minlength=images), list[int](), count
    firsts = order[groups[order] == order]
    for row in firsts:
        if sizes[row] <= left:
            taken.append(row)
            left -= sizes[row]
    if count - left < 2:
        taken = firsts[np.argsort(sizes[firsts], kind="stable")][:2].tolist()
    return np.flatnonzero(np.isin(groups, taken))


def held_out_predictions(
    head: LossPredictionHead,
    cache: FeatureCache,
    compare: HeadLoss,
    seed: int,
    folds: NDArray[np.int64],
) -> HeldOut:
    """Predict each fold by a head that was trained on all other images.

    ``folds`` are the numbers of the images' folds; those of -1 are never held out, and NaN.
    """
    predicted = np.full(len(folds), np.nan, np.float32)
    levels = np.full(len(folds), np.nan)
    for fold in range(folds.max() + 1):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        trained = train_head(head, cache, cache.rows(rest), compare, seed)
        predicted[held] = predict_losses(trained, cache, held)
        levels[held] = level_of(trained, cache, rest)
    return HeldOut(predicted, levels)


def level_of(head: nn.Module, cache: FeatureCache, images: NDArray[np.int64]) -> float:
    """Mean prediction of the images that a head was trained on.

    Losses of pairs leave it open: heads compare by what is above it.
    """
    return float(predict_losses(head, cache, images).mean(dtype=np.float64))


def predict_losses(
    head: nn.Module, cache: FeatureCache, images: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Predict the losses of images, float [images]."""
    rows = torch.from_numpy(images).to(cache.losses.device)
    with torch.no_grad():
        predicted: Tensor = head([values[rows] for values in cache.inputs])
    return predicted.cpu().numpy()


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


def scale_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of values [N, C].

    One that hardly varies gets the smallest deviation that counts. That of a constant channel is
    infinite: its weight becomes 0, which leaves nothing of its rounding errors.
    """
    std, squares = values.std(0, correction=0), values.square().mean(0)
    floor = max(float(std.mean()) * FLAT, float(squares.mean().sqrt()) * STEADY)
    constant = std <= STEADY * squares.sqrt()
    return values.mean(0), std.clamp(min=floor).masked_fill(constant, torch.inf)


def is_constant(values: Tensor) -> bool:
    """Whether no channel of a map, [N, C], varies by more than :data:`STEADY` of its size."""
    return bool(values.std(0, correction=0).max() <= STEADY * values.square().mean().sqrt())


def unscale(layer: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Make a layer that was trained on standardized inputs take them as they are."""
    with torch.no_grad():
        layer.weight.div_(std)
        layer.bias.sub_(layer.weight @ mean)
