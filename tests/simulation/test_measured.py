from __future__ import annotations

import math

import numpy as np
import pytest

from lloss.simulation.measured import Difference, Measured, differences, measured


def test_missing_figures_are_left_out_of_the_mean() -> None:
    found = measured([0.2, None, math.nan, 0.4])
    assert found.value == pytest.approx(0.3)
    assert found.interval[0] < 0.3 < found.interval[1]
    assert math.isnan(measured([None]).value)


@pytest.mark.parametrize(
    ("interval", "p", "settled", "sign"),
    [
        ((0.01, 0.05), 0.01, True, 1),
        ((-0.05, -0.01), 0.01, True, -1),
        ((-0.01, 0.05), 0.01, True, 0),  # contains zero
        ((0.01, 0.05), 0.05, True, 0),  # many methods: one of them may be so far off by chance
        ((0.01, 0.05), 0.01, False, 0),  # trials are missing
        ((math.nan, math.nan), 0.01, True, 0),  # one trial
    ],
)
def test_a_difference_is_clear_by_interval_and_test_on_all_trials(
    interval: tuple[float, float], p: float, settled: bool, sign: int
) -> None:
    middle = Measured(0.03, interval)
    assert Difference(9, middle, middle, [middle], p, settled).sign == sign


def test_differences_adjust_p_together() -> None:
    values = np.linspace(0.01, 0.02, 8)[:, None] * [0.5, 1]
    found = differences({"a": values, "b": values})
    assert [each.p for each in found.values()] == [2 * 2 / 2**8] * 2
    assert found["a"].later.value == pytest.approx(0.015)
    assert [each.value for each in found["a"].curve] == pytest.approx([0.0075, 0.015])


def test_equal_methods_are_seldom_found_to_differ() -> None:
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(120):
        reference = random.normal(0, 1, (9, 1))  # all are compared with the same one
        found = differences({f"m{n}": random.normal(0, 1, (9, 1)) - reference for n in range(5)})
        wrong += any(each.sign for each in found.values())
    assert wrong / 120 < 0.06
