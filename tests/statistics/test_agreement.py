from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from lloss.statistics.agreement import cohen_kappa


def test_kappa_is_the_written_out_formula() -> None:
    random = np.random.default_rng(0)
    one = random.choice(["a", "b", "c"], 200).tolist()
    other = [x if random.random() < 0.7 else "a" for x in one]
    agreed = sum(x == y for x, y in zip(one, other)) / 200
    chance = sum(Counter(one)[c] * Counter(other)[c] for c in "abc") / 200**2
    assert cohen_kappa(one, other) == pytest.approx((agreed - chance) / (1 - chance))


def test_kappa_of_independent_models_is_near_0_and_of_equal_ones_1() -> None:
    random = np.random.default_rng(0)
    one, other = (random.choice(["a", "b"], 5000, p=[0.9, 0.1]).tolist() for _ in range(2))
    assert abs(cohen_kappa(one, other)) < 0.05
    assert cohen_kappa(one, one) == 1 and cohen_kappa(["a"] * 5, ["a"] * 5) == 1
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1
    assert math.isnan(cohen_kappa([], []))
