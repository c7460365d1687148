from __future__ import annotations

import numpy as np
import pytest

from lloss.selection.weights import Weights


@pytest.mark.parametrize("count", [1, 7, 4096])
def test_weights_are_the_squared_share_of_lower_scores(count: int) -> None:
    scores = np.random.default_rng(count).permutation(count).astype(np.float64)
    weights = Weights(scores)(scores)
    assert np.allclose(weights, ((2 * scores + 2) / (2 * count + 2)) ** 2, rtol=1e-15, atol=0)
    assert weights.mean() == pytest.approx(1 / 3, abs=0.1)
    between = Weights(scores)(scores + 0.5)
    assert np.allclose(between, ((2 * scores + 3) / (2 * count + 2)) ** 2, rtol=1e-15, atol=0)


def test_only_the_order_of_scores_matters_and_equal_ones_weigh_the_same() -> None:
    scores = np.array([-5.0, -2.0, -2.0, 1e9, 0.0])
    weights = Weights(scores)(scores)
    assert (Weights(scores / 1e9)(scores / 1e9) == weights).all()
    assert (Weights(scores - 7)(scores - 7) == weights).all()
    assert weights[1] == weights[2] and np.argsort(weights).tolist()[-2:] == [4, 3]
    equal = np.full(9, 3.0)
    assert len(set(Weights(equal)(equal).tolist())) == 1
    assert 0 < Weights(scores)(np.array([-99.0]))[0] <= weights[0]
