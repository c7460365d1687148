from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from lloss.ranking import pair_counts, ranking_figures, ranks, spearman


def _with_ties(count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return random.integers(0, 6, count).astype(float), random.integers(0, 5, count).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_accuracy_counts_pairs_and_ties_as_halves(seed: int) -> None:
    score, loss = _with_ties(30, seed)
    right, pairs = 0.0, 0
    for i in range(30):
        for j in range(30):
            if loss[i] > loss[j]:
                pairs += 1
                right += 1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
    assert pair_counts(score, loss) == (right, pairs)
    assert ranking_figures(score, loss).ranking_accuracy == pytest.approx(right / pairs)


def test_more_rows_than_one_block_are_counted_once() -> None:
    score, loss = np.random.default_rng(0).permutation(4500).reshape(2, 2250)
    concordant = 0
    for i in range(2250):
        concordant += int(((loss[i] > loss) & (score[i] > score)).sum())
    assert pair_counts(score, loss) == (concordant, 2250 * 2249 // 2)


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_scipys(seed: int) -> None:
    score, loss = _with_ties(40, seed)
    assert spearman(score, loss) == pytest.approx(scipy.stats.spearmanr(score, loss).statistic)
    noise = np.random.default_rng(seed).normal(size=40)
    assert spearman(noise, loss) == pytest.approx(scipy.stats.spearmanr(noise, loss).statistic)


def test_ranks_are_scipys() -> None:
    score, _ = _with_ties(50, 0)
    assert np.array_equal(ranks(score), scipy.stats.rankdata(score))


def test_a_perfect_and_a_reversed_order_are_the_ends_of_the_scale() -> None:
    loss = np.array([0.1, 5.0, 2.0, 0.4])
    perfect, reversed_ = ranking_figures(loss * 3 + 1, loss), ranking_figures(-loss, loss)
    assert (perfect.ranking_accuracy, reversed_.ranking_accuracy) == (1, 0)
    assert perfect.spearman == pytest.approx(1)
    assert reversed_.spearman == pytest.approx(-1)


def test_a_constant_score_is_chance() -> None:
    figures = ranking_figures(np.zeros(6), np.arange(6.0))
    assert figures.ranking_accuracy == 0.5
    assert math.isnan(figures.spearman)


def test_lift_is_the_mean_loss_of_the_best_tenth_over_that_of_all() -> None:
    random = np.random.default_rng(0)
    score, loss = random.normal(size=200), random.random(200)
    best = sorted(range(200), key=lambda row: -score[row])[:20]
    expected = np.mean([loss[row] for row in best]) / np.mean(loss)
    assert ranking_figures(score, loss).lift == pytest.approx(expected)


def test_lift_of_a_few_images_is_that_of_the_best_one() -> None:
    assert ranking_figures(np.array([1.0, 2.0]), np.array([1.0, 3.0])).lift == pytest.approx(1.5)


def test_figures_that_are_undefined_are_nan() -> None:
    figures = ranking_figures(np.arange(4.0), np.zeros(4))
    assert math.isnan(figures.ranking_accuracy)
    assert math.isnan(figures.spearman)
    assert math.isnan(figures.lift)
