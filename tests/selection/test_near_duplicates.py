from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.errors import SelectionError
from lloss.selection.near_duplicates import distinct, near_duplicate_distance
from lloss.selection.unit_vectors import unit_integers, unit_length


def _cosine_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def _plain(picks: NDArray[np.float64], taken: NDArray[np.float64], least: float) -> list[bool]:
    """In whole numbers: directions are rounded to those of :func:`unit_integers`."""
    kept: list[bool] = []
    length = unit_length(picks.shape[1])
    others = [one.astype(int) for one in unit_integers(taken)]
    for pick in (one.astype(int) for one in unit_integers(picks)):
        kept.append(all(((pick - other) ** 2).sum() >= 2 * length**2 * least for other in others))
        if kept[-1]:
            others.append(pick)
    return kept


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("taken", [0, 7])
def test_distinct_equals_comparing_each_with_all_kept_before(seed: int, taken: int) -> None:
    """More picks than are compared with each other at once."""
    random = np.random.default_rng(seed)
    picks, labeled = random.normal(size=(280, 3)), random.normal(size=(taken, 3))
    for least in (0.02, 0.3):
        kept = distinct(picks, labeled, least)
        assert kept.tolist() == _plain(picks, labeled, least)
    scales = random.uniform(0.01, 100, (280, 1))
    assert distinct(picks * scales, labeled, 0.02).tolist() == _plain(picks, labeled, 0.02)


def test_copies_are_near_duplicates_at_any_distance_and_zeros_of_each_other() -> None:
    picks = np.random.default_rng(0).normal(size=(4, 700)).astype(np.float32)
    picks[3] = 0
    assert distinct(np.repeat(picks, 2, 0), picks[:0], 1e-12).tolist() == [True, False] * 4
    assert not distinct(picks, picks, 1e-12).any()
    assert distinct(picks, picks, 0).all()


def test_the_distance_of_near_duplicates_is_a_quantile_of_augmented_copies() -> None:
    random = np.random.default_rng(0)
    images = random.normal(size=(20, 8))
    copies = images + random.normal(size=(20, 8)) * np.linspace(0.01, 1, 20)[:, None]
    distances = sorted(map(_cosine_distance, images, copies))
    assert near_duplicate_distance(images, copies) == pytest.approx(distances[18], abs=1e-4)
    assert near_duplicate_distance(images, copies, 0) == pytest.approx(distances[0], abs=1e-4)


def test_pairs_that_are_not_finite_do_not_count() -> None:
    images = np.eye(3)
    copies = np.array([[1, 1, 0], [np.nan, 1, 0], [0, 0, np.inf]])
    found = near_duplicate_distance(images, copies, 1)
    assert found == pytest.approx(1 - 0.5**0.5, abs=1e-3)
    with pytest.raises(SelectionError, match="none of 2 images"):
        near_duplicate_distance(images[1:], copies[1:])
