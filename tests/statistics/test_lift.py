from __future__ import annotations

import math

import numpy as np
import pytest

from lloss.statistics.lift import LEAST, lift_of, standard_error


def test_lift_is_the_ratio_of_two_means_with_an_interval_that_holds_it() -> None:
    """In 95 of 100 draws of both means, the interval contains the true ratio of 2."""
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        picks, others = random.gamma(2, 1.0, 60), random.gamma(2, 0.5, 80)
        found = lift_of(picks, float(others.mean()), standard_error(others))
        assert found is not None and found.interval is not None
        assert found.value == pytest.approx(picks.mean() / others.mean())
        held += found.interval[0] <= 2 <= found.interval[1]
    assert 930 <= held <= 970


def test_an_unknown_error_leaves_the_interval_out() -> None:
    found = lift_of(np.ones(LEAST, np.float32), 0.5, math.nan)
    assert found is not None and (found.value, found.interval) == (2, None)


@pytest.mark.parametrize(
    ("losses", "random_loss"),
    [
        (np.ones(LEAST - 1), 1.0),
        (np.zeros(LEAST), 1.0),
        (np.ones(LEAST), 0.0),
        (np.ones(LEAST), math.nan),
        (np.full(LEAST, math.inf), 1.0),
    ],
)
def test_few_picks_and_means_without_a_ratio_have_none(
    losses: np.ndarray, random_loss: float
) -> None:
    assert lift_of(losses, random_loss, 0.1) is None
