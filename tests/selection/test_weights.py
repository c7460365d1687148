from __future__ import annotations

import numpy as np
import pytest

from lloss.selection.weights import RARITY, ClassWeights, ScoreWeights


@pytest.mark.parametrize("count", [1, 7, 4096])
def test_weights_are_the_share_of_lower_scores(count: int) -> None:
    scores = np.random.default_rng(count).permutation(count).astype(np.float64)
    weights = ScoreWeights(scores)(scores)
    share = (2 * scores + 2) / (2 * count + 2)
    assert np.allclose(weights, share, rtol=1e-14, atol=0)
    assert weights.mean() == pytest.approx(0.5, abs=0.1)
    between = ScoreWeights(scores)(scores + 0.5)
    assert np.allclose(between, (2 * scores + 3) / (2 * count + 2), rtol=1e-14, atol=0)


def test_only_the_order_of_scores_matters_and_equal_ones_weigh_the_same() -> None:
    scores = np.array([-5.0, -2.0, -2.0, 1e9, 0.0])
    weights = ScoreWeights(scores)(scores)
    assert (ScoreWeights(scores / 1e9)(scores / 1e9) == weights).all()
    assert (ScoreWeights(scores - 7)(scores - 7) == weights).all()
    assert weights[1] == weights[2] and np.argsort(weights).tolist()[-2:] == [4, 3]
    equal = np.full(9, 3.0)
    assert len(set(ScoreWeights(equal)(equal).tolist())) == 1
    assert 0 < ScoreWeights(scores)(np.array([-99.0]))[0] <= weights[0]


def test_a_class_weighs_by_how_rare_it_is() -> None:
    classes = np.repeat([0.0, 2.0, 7.0, np.nan], [81, 16, 2, 1])
    weights = ClassWeights(classes)(np.array([2.0, 0.0, np.nan, 7.0, 2.0]))
    assert np.allclose(weights, (25 / np.array([16, 81, 1, 2, 16])) ** RARITY)


def test_classes_that_the_sample_lacks_count_as_seen_once() -> None:
    weights = ClassWeights(np.array([1.0, 1.0, 3.0, 3.0]))
    assert np.allclose(
        weights(np.array([0.0, 2.0, 9.0, np.nan, 1.0])), np.array([2, 2, 2, 2, 1]) ** RARITY
    )
    assert (weights(np.array([1.0, 3.0])) == 1).all()  # even classes weigh the same
    assert ClassWeights(np.array([5.0]))(np.empty(0)).shape == (0,)
