"""Heads that are trained side by side are those that a plain loop trains one by one."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lloss
from lloss.modeling.head import LossPredictionHead
from lloss.training import head_training
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_stack import HeadStack, scale_of
from lloss.training.head_training import train_head, train_heads

STEPS = 40
ROWS = [torch.arange(150), torch.arange(20, 121), torch.tensor([3, 5, 9, 140])]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_training, "STEPS", STEPS)


def _cache() -> FeatureCache:
    """Two maps, one of them far from 0 and with a constant channel, and a summary."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(150, size, generator=generator) for size in (6, 4)]
    maps[0] = maps[0] * 30 + 100
    maps[0][:, 2] = 7
    summary = torch.randn(150, 3, generator=generator)
    return FeatureCache([*maps, summary], (summary[:, 0] + maps[1][:, 0]).exp(), 150)


def _head() -> LossPredictionHead:
    torch.manual_seed(1)
    return LossPredictionHead([6, 4], summary=3, hidden=5)


def _trained_alone(head: LossPredictionHead, cache: FeatureCache, rows: Tensor) -> nn.Module:
    """The head by a plain loop, on inputs that are standardized by the rows."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        fresh = copy.deepcopy(head)
        for layer in fresh.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    scales = [scale_of(values[rows]) for values in cache.inputs]
    inputs = [(values[rows] - mean) / std for values, (mean, std) in zip(cache.inputs, scales)]
    optimizer = torch.optim.AdamW(fresh.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS + 1)
    generator, chunks = torch.Generator().manual_seed(8), list[Tensor]()
    for _ in range(STEPS):
        if not chunks:
            order = torch.randperm(len(rows), generator=generator)
            chunks = list(order.tensor_split(math.ceil(len(rows) / 64)))
        some = chunks.pop()
        predicted = fresh([values[some] for values in inputs])
        optimizer.zero_grad()
        lloss.losses.soft_pairs(predicted, cache.losses[rows[some]]).backward()
        optimizer.step()
        schedule.step()

    class Standardized(nn.Module):
        def forward(self, values: list[Tensor]) -> Tensor:
            found: Tensor = fresh([(x - mean) / std for x, (mean, std) in zip(values, scales)])
            return found

    return Standardized()


@pytest.mark.parametrize("maps", [True, False])
def test_each_head_is_what_it_would_be_alone(maps: bool) -> None:
    cache, head = _cache(), _head()
    cache = cache if maps else cache.without_maps()
    heads = train_heads(head, cache, ROWS, lloss.losses.soft_pairs, 8)
    new = [torch.randn(50, values.shape[1]) for values in cache.inputs]
    new[0] = new[0] * 30 + 100
    for rows, trained in zip(ROWS, heads, strict=True):
        alone = _trained_alone(head, cache, rows)
        with torch.no_grad():
            wanted, found = alone(new), trained(new)
        # Pairs do not feel a constant: rounding alone moves the last bias.
        assert torch.allclose(found - found.mean(), wanted - wanted.mean(), atol=1e-3)
        assert found.std() > 0.02
        if not maps:
            assert not any(layer.weight.any() for layer in list(trained.inputs)[:-1])


def test_one_head_is_trained_as_one_of_several() -> None:
    cache, head = _cache(), _head()
    several = train_heads(head, cache, ROWS, lloss.losses.margin, 8)
    alone = train_head(head, cache, ROWS[1], lloss.losses.margin, 8)
    with torch.no_grad():
        found, wanted = several[1](cache.inputs), alone(cache.inputs)
    assert torch.allclose(found - found.mean(), wanted - wanted.mean(), atol=1e-3)
    before = [layer.weight.clone() for layer in _head().inputs]
    assert all(map(torch.equal, before, [layer.weight for layer in head.inputs]))


def test_a_stack_predicts_before_training_as_its_first_head() -> None:
    cache, head = _cache(), _head()
    stack = HeadStack(head, cache.inputs, ROWS)
    with torch.no_grad():
        found = stack.predict([rows[:4] for rows in ROWS])
        for number, rows in enumerate(ROWS):
            scales = [scale_of(values[rows]) for values in cache.inputs]
            some = [
                (values[rows[:4]] - mean) / std for values, (mean, std) in zip(cache.inputs, scales)
            ]
            np.testing.assert_allclose(found[number], head(some), atol=1e-5)
            taken = stack.head(number)([values[rows[:4]] for values in cache.inputs])
            np.testing.assert_allclose(taken, found[number], atol=1e-4)
