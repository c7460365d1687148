"""The head, trained on cached features, and how well it ranks images that it was not trained on."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HeadLoss
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_stack import HeadStack

HEAD_BATCH = 64
STEPS = 200
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
"""With 3 to 10 times as many steps at a third of the rate heads rank the losses of other images
worse, at 100 to 2,000 labels: see ``benchmarks/LOG.md``."""


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
    """Train a fresh head on some rows of the cache; see :func:`train_heads`."""
    return train_heads(head, cache, [rows], compare, seed)[0]


def train_heads(
    head: LossPredictionHead,
    cache: FeatureCache,
    rows: Sequence[Tensor],
    compare: HeadLoss,
    seed: int,
) -> list[LossPredictionHead]:
    """Train a fresh head on each choice of rows, int64 [R], standardized; they take them as is.

    Maps differ in scale by a factor of a hundred from network to network. The heads start from the
    same weights, and each becomes what it would alone.
    """
    rows = [each.to(cache.losses.device) for each in rows]
    stack = HeadStack(_fresh(head, seed), cache.inputs, rows)
    batches = [_batches(each, seed) for each in rows]
    optimizer = torch.optim.AdamW(
        stack.parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS + 1)
    for _ in range(STEPS):
        some = [next(each) for each in batches]
        with torch.enable_grad():
            predicted = stack.predict(some)
            # The sum, so that each has the gradient that it would have alone
            compared = torch.stack([
                compare(found, cache.losses[each]) for found, each in zip(predicted, some)
            ]).sum()  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        compared.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return [stack.head(number) for number in range(len(rows))]


def _batches(rows: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield batches of nearly the same size without end, each row once an epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        chunks = order.tensor_split(math.ceil(len(rows) / HEAD_BATCH))
        yield from (rows[chunk.to(rows.device)] for chunk in reversed(chunks))


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
    rest = [np.flatnonzero(folds != fold) for fold in range(folds.max() + 1)]
    heads = train_heads(head, cache, [cache.rows(each) for each in rest], compare, seed)
    for fold, trained in enumerate(heads):
        held = np.flatnonzero(folds == fold)
        predicted[held] = predict_losses(trained, cache, held)
        levels[held] = level_of(trained, cache, rest[fold])
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
