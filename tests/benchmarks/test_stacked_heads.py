"""The heads that are trained for all trials at once are those that lloss trains one by one."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import soft_pairs
from lloss.training import head_training
from lloss.training.feature_cache import FeatureCache


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        return importlib.import_module("stacked_heads")


def test_heads_of_all_trials_are_those_of_each(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_training, "STEPS", 30)
    sizes, head, seeds = (3, 5), LossPredictionHead([3, 5], hidden=8), (4, 7)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 100, size, generator=generator) for size in sizes]
    test = [torch.randn(2, 20, size, generator=generator) for size in sizes]
    losses = torch.rand(2, 100, generator=generator)
    first = [head_training._fresh(head, seed) for seed in seeds]

    def weights(*_: object) -> list[torch.Tensor]:
        layers = [[*(one.inputs), one.output] for one in first]
        return [
            torch.stack([value(layer) for layer in same]).detach().requires_grad_()
            for same in zip(*layers)
            for value in (lambda layer: layer.weight.T, lambda layer: layer.bias[None])
        ]

    monkeypatch.setattr(bench, "_first_weights", weights)
    found = bench.predictions(inputs, losses, test, bench.Recipe(steps=30, hidden=8), seeds)
    for row, seed in enumerate(seeds):
        cache = FeatureCache([values[row] for values in inputs], losses[row], 100)
        every = torch.arange(100)
        trained = head_training.train_head(head, cache, every, soft_pairs, seed)
        with torch.no_grad():
            wanted = trained([values[row] for values in test])
        # Pairs do not feel a constant: rounding alone moves the last bias.
        apart = found[row] - found[row].mean()
        np.testing.assert_allclose(apart, wanted - wanted.mean(), atol=1e-4)


def test_steps_grow_with_the_labels_where_a_recipe_asks_for_it(bench: ModuleType) -> None:
    recipe = bench.Recipe(steps=600, per_batch=60)
    assert [recipe.steps_of(count) for count in (100, 640, 641, 9999)] == [600, 600, 660, 3000]
    assert bench.Recipe().steps_of(9999) == head_training.STEPS
