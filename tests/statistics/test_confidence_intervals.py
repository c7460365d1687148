from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from lloss.statistics.confidence_intervals import (
    _student,
    bootstrap,
    decimals,
    fisher,
    in_percent,
    in_words,
    range_in_percent,
    wilson,
)


@pytest.mark.parametrize(("hits", "count"), [(3, 6), (0, 6), (6, 6), (1, 1), (47, 94), (999, 1000)])
def test_wilsons_interval_is_scipys(hits: int, count: int) -> None:
    expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high))


def test_nothing_counted_may_be_anything() -> None:
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, math.nan) == (0, 1)


def test_students_points_are_scipys() -> None:
    for freedom in (1, 2, 3, 4, 5, 9, 30, 200):
        expected = scipy.stats.t.ppf(0.975, freedom)
        assert _student(freedom) == pytest.approx(expected, rel=0.01)


def test_the_bootstrap_of_a_mean_is_students_interval_nearly() -> None:
    values = np.random.default_rng(1).normal(3, 2, 60)
    (low, high) = bootstrap(60, lambda w: {"mean": w @ values / w.sum(1)})["mean"]
    reach = scipy.stats.t.ppf(0.975, 59) * values.std(ddof=1) / math.sqrt(60)
    assert low == pytest.approx(values.mean() - reach, abs=0.2 * reach)
    assert high == pytest.approx(values.mean() + reach, abs=0.2 * reach)


def test_few_images_that_all_agree_are_no_certainty() -> None:
    ones = np.ones(3)
    found = bootstrap(3, lambda w: {"share": w @ ones / 3, "other": w @ ones / 3}, {"share": 3})
    assert found["share"] == pytest.approx(wilson(3, 3))
    assert found["other"] == (1, 1)  # not said to be a share


def test_draws_that_differ_by_rounding_agree() -> None:
    """A sum in another order ends in another last bit."""
    shares = np.array([0.1, 0.1 + 1e-16, 0.1 - 1e-16] * 2)
    found = bootstrap(6, lambda w: {"share": w @ shares / w.sum(1)}, {"share": 6})
    assert found["share"] == pytest.approx(wilson(0.6, 6))


def test_draws_without_the_figure_do_not_count() -> None:
    def figures(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        with np.errstate(invalid="ignore"):
            return {"share": weights[:, 0] / weights[:, 0], "none": weights[:, 0] * np.nan}

    found = bootstrap(4, figures, {"share": 1})
    assert found["share"] == pytest.approx(wilson(1, 1))
    assert all(math.isnan(end) for end in found["none"])


def test_a_rank_correlation_of_few_images_may_be_anything() -> None:
    assert fisher(0.9, 3) == (-1, 1)
    assert fisher(math.nan, 50) == (-1, 1)
    low, high = fisher(1.0, 6)
    assert 0.5 < low < 0.8 and high == 1
    assert fisher(-1.0, 6) == (-1, -low)


def test_fishers_interval_covers_the_truth() -> None:
    """Spearman's rho of a bivariate normal is 6/π·asin(r/2)."""
    random, held, truth = np.random.default_rng(0), 0, 6 / math.pi * math.asin(0.6 / 2)
    for _ in range(400):
        x, y = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 40).T
        low, high = fisher(float(scipy.stats.spearmanr(x, y).statistic), 40)
        held += low <= truth <= high
    assert 0.91 < held / 400 < 0.985


@pytest.mark.parametrize(
    ("interval", "digits", "words", "percents"),
    [
        ((0.188, 0.812), 2, "0.50 (95 % interval 0.19 to 0.81)", "19% to 81%"),
        ((0.481, 0.519), 3, "0.500 (95 % interval 0.481 to 0.519)", "48.1% to 51.9%"),
        ((0.4, 0.6), 2, "0.50 (95 % interval 0.40 to 0.60)", "40% to 60%"),
    ],
)
def test_no_more_digits_than_the_interval_is_worth(
    interval: tuple[float, float], digits: int, words: str, percents: str
) -> None:
    assert decimals(interval) == digits
    assert in_words(0.5, interval) == words
    assert range_in_percent(interval) == percents


def test_a_figure_names_its_images() -> None:
    assert in_words(0.5, wilson(3, 6), 6) == "0.50 (95 % interval 0.19 to 0.81, 6 images)"
    assert in_percent(0.5, wilson(3, 6)) == "50%"


def test_figures_without_an_interval_or_a_value() -> None:
    assert in_words(None, None) == "unknown"
    assert in_words(0.25, None) == "0.250"
    assert in_words(0.25, (math.nan, math.nan)) == "0.250"
    assert in_percent(0.25, None) == "25.0%"
    assert in_percent(None, (0.1, 0.2)) == "–"
    assert range_in_percent(None) == ""
