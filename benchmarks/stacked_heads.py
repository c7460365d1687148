"""Heads of several trials, trained at once: as one product of batches of matrices.

Each is trained as :mod:`lloss.training.head_training` trains one alone, as a test checks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lloss.training.head_stack import scale_of
from lloss.training.head_training import (
    HEAD_BATCH,
    LEARNING_RATE,
    STEPS,
    WEIGHT_DECAY,
)

Inputs = list[Tensor]


def stacked(inputs: Sequence[Inputs]) -> Inputs:
    """Inputs of all trials, float [S, N, C_k]."""
    return [torch.stack(each) for each in zip(*inputs)]


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; the defaults are those of ``lloss train --freeze``."""

    steps: int = STEPS
    per_batch: int = 0  # steps for each batch of labels, where these are more
    rate: float = LEARNING_RATE
    decay: float = WEIGHT_DECAY
    hidden: int = 128
    snapshots: tuple[float, ...] = (1.0,)  # shares of the steps whose predictions are averaged
    regress: bool = False  # on the losses, by the Gamma likelihood, instead of on pairs

    def steps_of(self, labels: int) -> int:
        """Steps for so many labels, at most 3,000."""
        return min(max(self.steps, self.per_batch * math.ceil(labels / HEAD_BATCH)), 3000)


def predictions(
    inputs: Inputs, losses: Tensor, test: Inputs, recipe: Recipe, seeds: Sequence[int]
) -> Tensor:
    """Train a head for each trial, and predict its test images: float [S, T].

    ``inputs`` are float [S, N, C_k], ``losses`` [S, N], ``test`` [S, T, C_k].
    """
    inputs, test = _standardized(inputs, test)
    count = losses.shape[1]
    weights = _first_weights([values.shape[2] for values in inputs], recipe.hidden, seeds)
    optimizer = torch.optim.AdamW(weights, recipe.rate, weight_decay=recipe.decay)
    steps = recipe.steps_of(count)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps + 1)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    chunks: list[Tensor] = []
    taken, found = {round(share * steps) for share in recipe.snapshots}, []
    for step in range(1, steps + 1):
        if not chunks:
            order = torch.stack([torch.randperm(count, generator=each) for each in generators])
            chunks = list(order.tensor_split(math.ceil(count / HEAD_BATCH), 1))
        some = chunks.pop()
        batch = [x.gather(1, some[:, :, None].expand(-1, -1, x.shape[2])) for x in inputs]
        p, l = _predict(weights, batch), losses.gather(1, some)
        # The sum over trials, so that each has the gradient that it would have alone
        total = (p + l * (-p).exp()).mean(1).sum() if recipe.regress else _soft_pairs(p, l)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        schedule.step()
        if step in taken:
            with torch.no_grad():
                found.append(_predict(weights, test))
    return torch.stack(found).mean(0)


def _soft_pairs(p: Tensor, l: Tensor) -> Tensor:
    """The sum over trials of :func:`lloss.losses.soft_pairs`."""
    i, j = torch.triu_indices(p.shape[1], p.shape[1], 1)
    total = l[:, i] + l[:, j]
    share = torch.where(total > 0, l[:, i] / total.clamp(min=torch.finfo(l.dtype).tiny), 0.5)
    each = functional.binary_cross_entropy_with_logits(p[:, i] - p[:, j], share, reduction="none")
    return each.mean(1).sum()


def _standardized(inputs: Inputs, test: Inputs) -> tuple[Inputs, Inputs]:
    scaled: tuple[Inputs, Inputs] = ([], [])
    for values, new in zip(inputs, test):
        scales = [scale_of(each) for each in values]
        mean, std = (torch.stack(parts)[:, None] for parts in zip(*scales))
        for found, x in zip(scaled, (values, new)):
            found.append((x - mean) / std)
    return scaled


def _first_weights(sizes: Sequence[int], hidden: int, seeds: Sequence[int]) -> Inputs:
    """Weight and bias of each layer, [S, in, out] and [S, 1, out], as ``nn.Linear`` draws them."""
    drawn: list[Inputs] = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        layers = [*((size, hidden) for size in sizes), (hidden * len(sizes), 1)]
        drawn.append([
            (2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(size)
            for size, out in layers
            for shape in ((size, out), (1, out))
        ])  # fmt: skip
    return [torch.stack(each).requires_grad_() for each in zip(*drawn)]


def _predict(weights: Inputs, inputs: Inputs) -> Tensor:
    """Predict, float [S, B]: :class:`lloss.LossPredictionHead` of each trial."""
    layers = list(zip(weights[::2], weights[1::2]))
    hidden = [torch.relu(x @ weight + bias) for (weight, bias), x in zip(layers, inputs)]
    weight, bias = layers[-1]
    return (torch.cat(hidden, 2) @ weight + bias).squeeze(2)
