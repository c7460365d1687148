from __future__ import annotations

import math

import numpy as np
import pytest

from lloss.statistics.disagreement import mutual_information, output_discrepancy


def _entropy(probabilities: list[float]) -> float:
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def test_mutual_information_equals_the_formula_written_out() -> None:
    passes = np.random.default_rng(0).dirichlet(np.ones(4), (5, 7))
    passes[:, 0] = [0.25, 0.25, 0.5, 0]  # passes agree
    passes[:, 1] = np.eye(4)[[0, 1, 2, 3, 0]]  # each is certain of another class
    expected = [
        _entropy(passes[:, row].mean(0).tolist())
        - sum(_entropy(one.tolist()) for one in passes[:, row]) / 5
        for row in range(7)
    ]
    found = mutual_information(passes.astype(np.float32))
    assert found == pytest.approx(expected, abs=1e-6)
    assert found[0] == pytest.approx(0, abs=1e-12) and found[1] == pytest.approx(1.3322, abs=1e-4)
    assert (found >= 0).all()


def test_output_discrepancy_is_the_distance_between_outputs() -> None:
    now, before = np.random.default_rng(1).normal(size=(2, 6, 3, 4)).astype(np.float32)
    expected = [np.linalg.norm((a - b).astype(np.float64).ravel()) for a, b in zip(now, before)]
    assert output_discrepancy(now, before) == pytest.approx(expected, rel=1e-6)
    assert output_discrepancy(now[:, 0, 0], now[:, 0, 0]).tolist() == [0.0] * 6
