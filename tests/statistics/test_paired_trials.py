from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from lloss.statistics.paired_trials import (
    DRAWS,
    EXACT,
    Reached,
    holm,
    labels_to_reach,
    least_p,
    mean_after_first,
    mean_interval,
    median_reached,
    sign_flip_p,
    student_quantile,
)


@pytest.mark.parametrize("trials", [1, 2, 5, 9])
def test_p_is_the_share_of_sign_patterns(trials: int) -> None:
    values = np.random.default_rng(trials).normal(0.3, 1, trials)
    sums = [abs(float(np.dot(signs, values))) for signs in product((1, -1), repeat=trials)]
    share = np.mean([each >= abs(values.sum()) - 1e-12 for each in sums])
    assert sign_flip_p(values) == pytest.approx(share)


def test_p_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(4).normal(0.5, 1, 12)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(theirs.pvalue)


def test_p_of_many_trials_is_drawn_and_near_the_exact_one() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(7).normal(0.35, 1, 40)
    assert sign_flip_p(values) == sign_flip_p(values.copy())
    assert sign_flip_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)
    assert sign_flip_p(np.full(40, 0.1)) == 1 / (DRAWS + 1) == least_p(40)


def test_ties_and_shared_figures_count_as_far_as_the_observed() -> None:
    assert sign_flip_p(np.zeros(6)) == 1
    assert sign_flip_p(np.array([])) == 1
    # Accuracies are multiples of one image: sums in another order round otherwise.
    values = np.array([0.1, 0.2, 0.3, -0.1])
    assert sign_flip_p(values) == sign_flip_p(values[::-1]) == 6 / 16


def test_least_p_is_of_differences_of_one_sign() -> None:
    for trials in (1, 2, 3, 8, EXACT):
        assert sign_flip_p(np.linspace(1, 2, trials)) == least_p(trials) == 2.0 ** (1 - trials)


def test_holm_adjusts_as_written_out() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 19, 120])
def test_student_quantile_agrees_with_scipy(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_student_quantile_of_the_tables() -> None:
    found = [round(student_quantile(freedom), 3) for freedom in (1, 2, 9, 19)]
    assert found == [12.706, 4.303, 2.262, 2.093]


def test_interval_is_students() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    reach = 3.182446 * values.std(ddof=1) / 2
    assert mean_interval(values) == pytest.approx((4 - reach, 4 + reach), rel=1e-6)


def test_interval_covers_the_mean_of_ten_trials() -> None:
    random = np.random.default_rng(0)
    held = [low <= 0 <= high for low, high in map(mean_interval, random.normal(0, 1, (2000, 10)))]
    assert 0.935 < np.mean(held) < 0.965


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.5, 0.5], [0.0, 0.0]])
def test_interval_of_nothing_that_varies_is_undefined(values: list[float]) -> None:
    assert all(map(math.isnan, mean_interval(np.array(values))))


LABELS = np.array([100.0, 200.0, 300.0])


@pytest.mark.parametrize(
    ("curve", "figure", "reached", "shown"),
    [
        ([0.5, 0.6, 0.8], 0.7, Reached(250, False), "250"),
        ([0.5, 0.6, 0.8], 0.8, Reached(300, False), "300"),
        ([0.5, 0.6, 0.8], 0.81, Reached(300, True), ">300"),
        ([0.5, 0.6, 0.8], 0.4, Reached(100, False), "100"),
        ([0.5, 0.7, 0.6], 0.65, Reached(175, False), "175"),  # falls again: the first time counts
    ],
)
def test_labels_are_interpolated_or_censored(
    curve: list[float], figure: float, reached: Reached, shown: str
) -> None:
    found = labels_to_reach(LABELS, np.array(curve), figure)
    assert (found.labels, found.censored) == (pytest.approx(reached.labels), reached.censored)
    assert str(found) == shown


def test_median_counts_censored_trials_as_more() -> None:
    early, late, never = Reached(100, False), Reached(200, False), Reached(600, True)
    assert median_reached([late, early]) == Reached(150, False)
    assert median_reached([never, early, late]) == late
    assert median_reached([never, early]) == Reached(350, True)
    assert median_reached([never, early, never]) == never
    # One that stopped early, unreached, is still not below one that reached it later
    assert median_reached([Reached(50, True), late, early]) == late


def test_mean_after_first() -> None:
    assert mean_after_first(np.array([9.0, 1.0, 2.0])) == 1.5
    assert math.isnan(mean_after_first(np.array([9.0])))
