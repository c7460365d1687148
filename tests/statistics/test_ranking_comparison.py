from __future__ import annotations

import math

import numpy as np
import pytest

from lloss.statistics.ranking_comparison import compare_rankings
from lloss.statistics.ranking_metrics import ranking_figures


@pytest.mark.parametrize("folds", [None, 3])
def test_the_difference_is_that_of_the_two_ranking_accuracies(folds: int | None) -> None:
    random = np.random.default_rng(0)
    loss, one, other = (random.integers(0, 9, 60).astype(float) for _ in range(3))
    numbers = None if folds is None else random.permutation(60) % folds
    found = compare_rankings(one, other, loss, numbers)
    accuracies = [ranking_figures(s, loss, folds=numbers).ranking_accuracy for s in (one, other)]
    assert found.value == pytest.approx(accuracies[0] - accuracies[1], abs=1e-12)
    low, high = found.interval
    assert low < found.value < high


def test_the_interval_is_that_of_accuracies_of_images_drawn_with_replacement() -> None:
    random = np.random.default_rng(1)
    loss = random.random(40)
    one, other = loss + random.normal(0, 0.3, 40), loss + random.normal(0, 0.6, 40)
    drawn = np.random.default_rng([40, 95]).integers(40, size=(1000, 40))
    differences = [
        ranking_figures(one[rows], loss[rows]).ranking_accuracy
        - ranking_figures(other[rows], loss[rows]).ranking_accuracy
        for rows in drawn
    ]
    wanted = np.quantile(differences, (0.025, 0.975))
    assert compare_rankings(one, other, loss).interval == pytest.approx(tuple(wanted))


def test_of_many_images_some_are_compared() -> None:
    random = np.random.default_rng(3)
    loss = random.random(3000)
    one, other = (loss + random.normal(0, each, 3000) for each in (0.2, 0.4))
    found = compare_rankings(one, other, loss)
    accuracies = [ranking_figures(score, loss).ranking_accuracy for score in (one, other)]
    assert found.interval[0] < accuracies[0] - accuracies[1] < found.interval[1]
    assert np.ptp(found.interval) < 0.04


def test_pairing_makes_the_interval_of_similar_scores_narrow() -> None:
    random = np.random.default_rng(2)
    loss = random.random(200)
    noise = random.normal(0, 0.4, 200)
    close = compare_rankings(loss + noise, loss + noise + random.normal(0, 0.02, 200), loss)
    apart = compare_rankings(loss + noise, loss + random.normal(0, 0.4, 200), loss)
    assert np.ptp(close.interval) < np.ptp(apart.interval) / 5


@pytest.mark.parametrize("count", [0, 1, 5])
def test_images_of_one_loss_have_no_difference(count: int) -> None:
    found = compare_rankings(np.arange(count), np.arange(count), np.ones(count))
    assert math.isnan(found.value) and all(map(math.isnan, found.interval))
