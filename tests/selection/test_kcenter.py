from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.errors import SelectionError
from lloss.selection.kcenter import k_center, spreadable


def _exact_k_center(
    points: Sequence[Sequence[Fraction]], k: int, labeled: Sequence[Sequence[Fraction]] = ()
) -> list[int]:
    picked = [] if labeled else [0]
    while len(picked) < k:
        centers = [*labeled, *(points[row] for row in picked)]
        nearest = [
            min(sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in centers)
            for p in points
        ]
        left = [row for row in range(len(points)) if row not in picked]
        picked.append(max(left, key=lambda row: (nearest[row], -row)))
    return picked


@pytest.mark.parametrize("seed", range(4))
def test_k_center_equals_brute_force_in_exact_arithmetic(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(30, 5)).astype(np.float32)
    exact = [[Fraction(float(x)) for x in row] for row in points]
    assert k_center(points, 12).tolist() == _exact_k_center(exact, 12)


@pytest.mark.parametrize("count", [1, 40])
def test_k_center_from_labeled_images_on_equals_brute_force(count: int) -> None:
    random = np.random.default_rng(count)
    points = random.normal(size=(30, 5)).astype(np.float32)
    labeled = random.normal(size=(count, 5)).astype(np.float32)
    labeled[0] = points[3]  # a row that is labeled adds nothing: it comes last
    exact, known = ([[Fraction(float(x)) for x in row] for row in one] for one in (points, labeled))
    assert k_center(points, 12, labeled).tolist() == _exact_k_center(exact, 12, known)
    assert k_center(points, 30, labeled).tolist()[-1] == 3
    assert k_center(points, 12, labeled[:0]).tolist() == k_center(points, 12).tolist()


def test_k_center_from_many_labeled_images_on_equals_measuring_every_row() -> None:
    """More of either than are measured at once."""
    random = np.random.default_rng(0)
    points, labeled = random.integers(-9, 10, (5000, 3)), random.integers(-9, 10, (300, 3))
    points[0] = 9  # the largest is kept as it is, so rounding is a scale alone
    squares = ((points[:, None] - labeled) ** 2).sum(2).min(1)
    expected = []
    for _ in range(200):
        expected.append(int(squares.argmax()))
        squares = np.minimum(squares, ((points - points[expected[-1]]) ** 2).sum(1))
        squares[expected] = -1
    assert k_center(points, 200, labeled).tolist() == expected


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_k_center_does_not_depend_on_the_order_or_scale_of_the_columns(scale: float) -> None:
    random = np.random.default_rng(0)
    points = random.integers(-2, 3, (200, 512)).astype(np.float64)
    picks = k_center(points, 50).tolist()
    for _ in range(3):
        assert k_center(points[:, random.permutation(512)] * scale, 50).tolist() == picks


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_k_center_refuses_embeddings_that_have_no_distance(value: float) -> None:
    """Scaled to the largest number, all others would become one point."""
    points = np.random.default_rng(0).normal(size=(10, 3))
    points[5, 1] = value
    with pytest.raises(SelectionError, match="infinite or NaN"):
        k_center(points, 3)


def test_spreadable_are_the_finite_embeddings_of_a_usual_size() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    points[:20] = 0  # dead units are common, and no reason to call the others extreme
    assert spreadable(points).all()
    for row, value in ((3, np.nan), (7, np.inf), (9, -np.inf), (30, 1e30), (31, -3e38)):
        points[row, row % 4] = value
    usable = spreadable(points)
    assert np.flatnonzero(~usable).tolist() == [3, 7, 9, 30, 31]
    assert spreadable(np.zeros((3, 2))).all()
    assert spreadable(points.astype(np.float64)).tolist() == usable.tolist()


def _plain_k_center(points: NDArray[np.float64], k: int) -> list[int]:
    """Every row measured to every pick; points are integers, so that nothing is rounded."""
    nearest, picked = np.full(len(points), np.inf), [0]
    while len(picked) < k:
        nearest = np.minimum(nearest, ((points - points[picked[-1]]) ** 2).sum(1))
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
    return picked


@pytest.mark.parametrize("spread", [1, 3, 1000])
@pytest.mark.parametrize("copies", [1, 4])
def test_k_center_of_many_picks_equals_measuring_every_row(spread: int, copies: int) -> None:
    """Beyond the picks after which all rows are measured again, and to the last row."""
    random = np.random.default_rng(spread)
    points = random.integers(-spread, spread + 1, (700 // copies, 6)).astype(np.float64)
    points = random.permutation(np.repeat(points, copies, 0))
    points[0] = spread  # the largest is kept as it is, so rounding is a scale alone
    for k in (1, 128, 129, 300, len(points)):
        assert k_center(points.astype(np.float32), k).tolist() == _plain_k_center(points, k)
