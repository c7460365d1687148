"""The quantiles that an exported model carries, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from lloss.errors import PoolError
from lloss.statistics.loss_distribution import MIN_IMAGES, LossReference


@pytest.mark.parametrize("count", [200, 257, 1000, 1999])
def test_the_quantiles_are_losses_of_images(count: int) -> None:
    losses = np.random.default_rng(count).gamma(2, 1, count).astype(np.float32)
    found = LossReference.of(losses, "pool")
    assert found.images == count and len(found.quantiles) == 101
    assert found.quantiles[0] == losses.min() and found.quantiles[100] == losses.max()
    for percent in range(1, 100):
        value = found.quantiles[percent]
        assert (losses <= value).sum() * 100 >= percent * count > (losses < value).sum() * 100


def test_ties_stand_there_as_often_as_they_come() -> None:
    losses = np.array([0.0] * 300 + [1.0] * 700, np.float32)
    assert LossReference.of(losses, "pool").quantiles == (0.0,) * 31 + (1.0,) * 70


def test_what_is_not_finite_is_left_out_and_too_few_are_refused() -> None:
    losses = np.concatenate([np.arange(MIN_IMAGES), [np.nan, np.inf]]).astype(np.float32)
    assert LossReference.of(losses, "pool").images == MIN_IMAGES
    with pytest.raises(PoolError, match="my pool: only 199 of its images"):
        LossReference.of(losses[1:], "my pool")


def test_it_says_what_it_is() -> None:
    found = LossReference.of(np.arange(1, 1001, dtype=np.float32), "s3://bucket/pool")
    assert str(found) == (
        "predicted loss 500 (80% within 100 to 900) on 1,000 images of s3://bucket/pool"
    )
