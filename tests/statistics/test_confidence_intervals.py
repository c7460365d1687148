from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from lloss.statistics.confidence_intervals import (
    bootstrap,
    decimals,
    in_percent,
    in_points,
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


def test_the_bootstrap_of_a_mean_is_students_interval_nearly() -> None:
    values = np.random.default_rng(1).normal(3, 2, 60)
    (low, high) = bootstrap(60, lambda w: {"mean": w @ values / w.sum(1)})["mean"]
    reach = scipy.stats.t.ppf(0.975, 59) * values.std(ddof=1) / math.sqrt(60)
    assert low == pytest.approx(values.mean() - reach, abs=0.2 * reach)
    assert high == pytest.approx(values.mean() + reach, abs=0.2 * reach)


def test_what_no_draw_has_or_all_share_has_no_interval() -> None:
    """A sum in another order ends in another last bit."""
    shares = np.array([0.1, 0.1 + 1e-16, 0.1 - 1e-16] * 2)
    found = bootstrap(6, lambda w: {"same": w @ shares / w.sum(1), "none": w[:, 0] * np.nan})
    assert all(math.isnan(end) for interval in found.values() for end in interval)


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


def test_figures_without_an_interval_or_a_value() -> None:
    assert in_words(None, None) == "unknown"
    assert in_words(0.25, None) == "0.250"
    assert in_words(0.25, (math.nan, math.nan)) == "0.250"
    assert in_percent(0.25, None) == "25.0%"
    assert in_percent(None, (0.1, 0.2)) == "–"
    assert range_in_percent(None) == ""


def test_differences_in_points_have_a_sign_unless_they_round_to_zero():
    shares = (0.101, -0.004, 0.0004, -0.0004, 0.2)
    assert list(map(in_points, shares)) == ["+10.1", "−0.4", "0.0", "0.0", "+20.0"]
    assert [in_points(share, 0) for share in shares] == ["+10", "0", "0", "0", "+20"]
