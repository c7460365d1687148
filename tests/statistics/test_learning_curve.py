from __future__ import annotations

import numpy as np
import pytest

from lloss.statistics.learning_curve import CurvePoint, expected_gain


def points(values: list[float], reach: float = 0.02) -> list[CurvePoint]:
    return [
        CurvePoint(100 * n, value, (value - reach, value + reach) if reach else None)
        for n, value in enumerate(values, 1)
    ]


def power(labeled: float, scale: float = 5.0, exponent: float = 0.5) -> float:
    return 1 - scale * labeled**-exponent


@pytest.mark.parametrize("reach", [0.02, 0.0])
def test_a_power_law_is_continued_exactly(reach: float) -> None:
    found = expected_gain(points([power(100 * n) for n in (1, 2, 3, 4)], reach), 100)
    assert found is not None and found.labels == 100
    assert found.gain == pytest.approx(power(500) - power(400))
    assert found.now == pytest.approx(power(400))
    low, high = found.interval
    assert low <= found.gain <= high and (high - low > 0.001) == bool(reach)


def test_the_interval_holds_the_gain_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        noisy = [power(100 * n) + random.normal(0, 0.01) for n in (1, 2, 3, 4, 5)]
        found = expected_gain(points(noisy, 1.96 * 0.01), 100)
        assert found is not None
        held += found.interval[0] <= power(600) - power(500) <= found.interval[1]
    assert held / 400 > 0.93


def test_points_that_scatter_more_than_they_may_widen_it() -> None:
    smooth = expected_gain(points([0.5, 0.6, 0.65, 0.69]), 100)
    rough = expected_gain(points([0.5, 0.7, 0.55, 0.69]), 100)
    assert smooth and rough
    assert np.ptp(rough.interval) > 2 * np.ptp(smooth.interval)


@pytest.mark.parametrize(
    "values", [[], [0.5], [0.5, 0.6], [1.0, 1.0, 1.0, 0.9], [float("nan"), 0.5, 0.6]]
)
def test_fewer_than_three_points_say_nothing(values: list[float]) -> None:
    assert expected_gain(points(values), 100) is None
    assert expected_gain([CurvePoint(100, 0.5)] * 3, 100) is None
    assert expected_gain(points([0.5, 0.6, 0.7]), 0) is None
