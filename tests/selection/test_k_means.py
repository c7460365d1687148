from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.selection.k_means import k_means, k_means_plus_plus


def _line(places: list[float]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Squared distances between points on a line."""
    points = np.array(places)
    return points, [(points - place) ** 2 for place in points]


def test_a_row_is_drawn_in_proportion_to_its_squared_distance() -> None:
    _, squares = _line([0.0, 1.0, 2.0, 4.0])
    draws = Counter(
        int(k_means_plus_plus(squares.__getitem__, 0, 2, seed)[1]) for seed in range(2100)
    )
    assert draws[0] == 0
    for row, share in ((1, 1 / 21), (2, 4 / 21), (3, 16 / 21)):
        deviation = (2100 * share * (1 - share)) ** 0.5
        assert abs(draws[row] - 2100 * share) < 4 * deviation


@pytest.mark.parametrize("seed", range(5))
def test_fewer_rows_are_the_first_of_more_and_copies_come_last(seed: int) -> None:
    _, squares = _line([3.0, 3.0, 0.0, 7.5, 7.5, 1e-9])
    rows = k_means_plus_plus(squares.__getitem__, 0, 6, seed).tolist()
    assert sorted(rows) == list(range(6)) and rows[0] == 0
    assert rows[4:] == [1, 4 if 3 in rows[:4] else 3]  # copies of rows drawn before
    for k in range(1, 6):
        assert k_means_plus_plus(squares.__getitem__, 0, k, seed).tolist() == rows[:k]


def _plain_k_means(points: NDArray[np.float32], centers: NDArray[np.float32]) -> list[int]:
    """Lloyd's algorithm with centers rounded to integers toward zero, row by row."""
    before: list[int] = []
    while True:
        clusters = [int(((point - centers) ** 2).sum(1).argmin()) for point in points]
        if clusters == before:
            return clusters
        before = clusters
        for cluster in set(clusters):
            rows = [point for point, own in zip(points, clusters, strict=True) if own == cluster]
            centers[cluster] = np.trunc(np.sum(rows, 0) / len(rows))


@pytest.mark.parametrize("seed", range(4))
def test_k_means_equals_lloyds_algorithm_written_out(seed: int) -> None:
    points = np.random.default_rng(seed).integers(-500, 501, (60, 4)).astype(np.float32)
    found = k_means(points, 5, seed)
    centers = np.stack([points[found == cluster].mean(0, np.float64) for cluster in range(5)])
    assert found.tolist() == _plain_k_means(points, np.trunc(centers))  # it is a fixed point
    assert found.tolist() == k_means(points[:, [2, 0, 3, 1]], 5, seed).tolist()


def test_k_means_finds_separate_groups_and_does_with_copies() -> None:
    random = np.random.default_rng(0)
    places = random.permutation(np.repeat(np.arange(6), 40))
    points = 4000 * np.eye(6, dtype=np.float32)[places]
    points += random.integers(-9, 10, (240, 6), dtype=np.int8)
    found = k_means(points, 6, 3)
    assert {len(set(places[found == cluster])) for cluster in range(6)} == {1}
    same = np.ones((7, 3), np.float32)
    assert set(k_means(same, 3, 0)) <= {0, 1, 2}
    assert k_means(same[:1], 1, 0).tolist() == [0]
