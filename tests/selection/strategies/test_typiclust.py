from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.selection.strategies.typiclust import typical_rows


def _blobs(sizes: list[int], seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Groups far from each other; the first row of each is its middle."""
    random = np.random.default_rng(seed)
    points, groups = [], []
    for group, size in enumerate(sizes):
        middle = 4000 * np.eye(len(sizes))[group]
        noise = np.rint(random.normal(0, 20, (size, len(sizes))))
        noise[0] = 0
        points.append(middle + noise)
        groups += [group] * size
    return np.concatenate(points).astype(np.float32), np.array(groups)


def _typicality(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the authors' code has it: 1 / the mean distance to the 20 nearest others."""
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    neighbors = min(20, len(points) // 2)
    return 1 / (np.sort(distances, 1)[:, 1 : neighbors + 1].mean(1) + 1e-5)


def test_the_most_typical_of_each_group_from_the_largest_on() -> None:
    points, groups = _blobs([30, 90, 60])
    rows = typical_rows(points, points[:0], 3, 1)
    assert groups[rows].tolist() == [1, 2, 0]
    for row, group in zip(rows, (1, 2, 0), strict=True):
        members = np.flatnonzero(groups == group)
        assert row == members[_typicality(points[members]).argmax()]


def test_groups_without_a_label_come_first() -> None:
    points, groups = _blobs([30, 90, 60, 40])
    labeled = points[[groups.tolist().index(1), groups.tolist().index(2)]] + 7
    rows = typical_rows(points, labeled, 2, 0)
    assert groups[rows].tolist() == [3, 0]


def test_small_clusters_come_last_and_every_row_can_be_had() -> None:
    points, groups = _blobs([3, 40])
    rows = typical_rows(points, points[:0], 2, 0)
    assert groups[rows].tolist() == [1, 1]
    for seed in range(3):
        assert sorted(typical_rows(points, points[:0], 43, seed)) == list(range(43))


@pytest.mark.parametrize("count", [1, 2, 9])
def test_equal_images(count: int) -> None:
    points = np.full((count, 3), 2000, np.float32)
    assert sorted(typical_rows(points, points[:2], count, 0)) == list(range(count))


def test_columns_in_another_order_give_the_same_rows() -> None:
    random = np.random.default_rng(2)
    points = np.rint(random.normal(0, 400, (300, 64))).astype(np.float32)
    rows = typical_rows(points, points[:5], 30, 4)
    order = random.permutation(64)
    assert typical_rows(points[:, order], points[:5][:, order], 30, 4).tolist() == rows.tolist()
