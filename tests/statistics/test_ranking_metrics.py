from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from lloss.statistics.ranking_metrics import (
    _kendall_variance,
    accuracy_interval,
    pair_counts,
    ranking_figures,
    ranking_intervals,
    spearman,
)


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


def test_figures_that_are_undefined_are_nan() -> None:
    figures = ranking_figures(np.arange(4.0), np.zeros(4))
    assert math.isnan(figures.ranking_accuracy)
    assert math.isnan(figures.spearman)
    assert math.isnan(figures.lift)


def _orders(score: NDArray[np.float64]) -> list[tuple[int, ...]]:
    """All orders of the rows by falling score."""
    rows = range(len(score))
    return [o for o in itertools.permutations(rows) if all(np.diff(score[list(o)]) <= 0)]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_lift_is_the_mean_over_all_orders_of_what_ties(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    score, loss = random.integers(0, 3, 7).astype(float), random.random(7)
    top = max(1, round(7 * share))
    lifts = [np.mean(loss[list(order)][:top]) / np.mean(loss) for order in _orders(score)]
    assert ranking_figures(score, loss, share).lift == pytest.approx(np.mean(lifts))


@pytest.mark.parametrize("seed", range(4))
def test_the_variance_under_chance_is_that_over_all_permutations(seed: int) -> None:
    """Of concordant less discordant pairs, both sides with ties."""
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 4, 6), random.integers(0, 3, 6)

    def statistic(x: NDArray[np.int64]) -> float:
        return sum(np.sign(x[i] - x[j]) * np.sign(b[i] - b[j]) for i in range(6) for j in range(i))

    values = [statistic(a[list(order)]) for order in itertools.permutations(range(6))]
    assert _kendall_variance(a, b) == pytest.approx(np.var(values))


def test_the_interval_holds_chance_where_kendalls_test_does_not_refuse_it() -> None:
    random = np.random.default_rng(5)
    for noise in (0.5, 1.5, 3, 6, 100):
        loss = random.random(40)
        score = loss + noise * random.normal(size=40)
        low, high = ranking_intervals(score, loss)["ranking_accuracy"]
        p = scipy.stats.kendalltau(score, loss, method="asymptotic").pvalue
        if not 0.02 < p < 0.1:  # the variance of the sample decides near the edge
            assert (low <= 0.5 <= high) == (p > 0.05), (noise, low, high, p)


def test_the_interval_covers_the_truth() -> None:
    """A normal pair of correlation r is ordered right with ½ + asin(r)/π."""
    random = np.random.default_rng(0)
    for r, count in ((0.0, 20), (0.6, 20), (0.6, 100), (0.95, 30)):
        truth, held = 0.5 + math.asin(r) / math.pi, 0
        for _ in range(300):
            x, y = random.multivariate_normal([0, 0], [[1, r], [r, 1]], count).T
            low, high = ranking_intervals(x, y)["ranking_accuracy"]
            held += low <= truth <= high
        assert held / 300 > 0.92, (r, count)


def test_only_pairs_within_a_fold_are_compared() -> None:
    score, loss = _with_ties(30, 0)
    folds = np.random.default_rng(1).permutation(30) % 3
    counts = [pair_counts(score[folds == fold], loss[folds == fold]) for fold in range(3)]
    right, pairs = np.sum(counts, 0)
    figures = ranking_figures(score, loss, folds=folds)
    assert figures.ranking_accuracy == right / pairs
    # The level of a fold's scores does not count, nor their scale.
    moved = score * (1 + folds) + 100 * folds
    assert ranking_figures(moved, loss, folds=folds) == figures
    assert accuracy_interval(moved, loss, folds) == accuracy_interval(score, loss, folds)
    assert ranking_figures(score, loss, folds=np.zeros(30)) == ranking_figures(score, loss)
    perfect = ranking_figures(loss + 100 * folds, loss, folds=folds)
    assert perfect.ranking_accuracy == 1


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_the_interval_of_a_cross_validation_covers_the_truth(signal: float) -> None:
    """Ridge regression is the model; the truth is how it orders many other images."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        features, weights = random.normal(size=(1000, 20)), random.normal(size=20) / 20**0.5
        losses = signal * features @ weights + random.normal(size=1000)
        x, y, folds = features[:40], losses[:40], random.permutation(40) % 5
        score = np.empty(40)
        for fold in range(5):
            score[folds == fold] = x[folds == fold] @ _ridge(x[folds != fold], y[folds != fold])
        truth = 0.5
        if signal:
            predicted = features[40:] @ _ridge(x, y)
            truth = 0.5 + scipy.stats.kendalltau(predicted, losses[40:]).statistic / 2
        low, high = accuracy_interval(score, y, folds)
        covered += low <= truth <= high
    assert 0.92 <= covered / 200 <= 0.99


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.solve(x.T @ x + 5 * np.eye(x.shape[1]), x.T @ (y - y.mean()))
