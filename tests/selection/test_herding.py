"""Greedy weighted coverage equals measuring everything after each pick."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.selection import herding
from lloss.selection.herding import herd, kernel_width
from lloss.selection.unit_vectors import squared_distances, unit_integers


def _kernel(units: NDArray[np.float32], others: NDArray[np.float32], width: float) -> NDArray:
    """``exp(-d / width)`` in steps of 1/1024 of the exponent, as integers up to 2**16."""
    steps = np.floor(squared_distances(units, others) * np.float32(1024 / width))
    kernel = np.rint(2.0**16 * np.exp(-steps.astype(np.float64) / 1024))
    return np.where(steps < 12 * 1024, kernel, 0).astype(np.int64)


def _naive(
    units: NDArray[np.float32],
    weights: NDArray[np.float64],
    k: int,
    labeled: NDArray[np.float32],
    width: float,
) -> tuple[list[int], list[float]]:
    """Every gain, in whole numbers, after every pick."""
    whole = np.maximum(np.rint(weights / weights.max() * 2**20), 1).astype(np.int64)
    kernel = _kernel(units, units, width)
    covered = _kernel(units, labeled, width).max(1, initial=0)
    picked: list[int] = []
    gains: list[float] = []
    for _ in range(k):
        added = (np.maximum(kernel - covered, 0) * whole).sum(1)
        added[picked] = -1
        picked.append(int(added.argmax()))
        gains.append(int(added.max()) / (int(whole.sum()) * 2**16))
        covered = np.maximum(covered, kernel[picked[-1]])
    return picked, gains


def _clusters(count: int, seed: int, copies: int = 1) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(12, 16))
    points = centers[random.integers(0, 12, count)] + 0.4 * random.normal(size=(count, 16))
    return unit_integers(np.repeat(points, copies, 0)[:count])


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("width", [0.01, 0.2, 3.0])
@pytest.mark.parametrize("labeled", [0, 30])
def test_picks_equal_the_naive_algorithm_on_500_points(
    copies: int, width: float, labeled: int
) -> None:
    units, known = _clusters(500, 0, copies), _clusters(labeled, 1)
    weights = np.random.default_rng(2).gamma(0.5, size=500) + 1e-9
    rows, gains = herd(units, weights, 120, known, width)
    picked, added = _naive(units, weights, 120, known, width)
    assert rows.tolist() == picked and gains.tolist() == added


def test_all_rows_can_be_picked_and_copies_come_last() -> None:
    units = np.repeat(_clusters(20, 3), 3, 0)
    rows, gains = herd(units, np.ones(60), 60, units[:0], 0.1)
    assert sorted(rows.tolist()) == list(range(60))
    assert rows[:20].tolist() == sorted(rows[:20].tolist(), key=rows.tolist().index)
    assert {row // 3 for row in rows[:20].tolist()} == set(range(20))
    assert (gains[:20] > 0).all() and (gains[20:] == 0).all()


def test_what_labeled_images_cover_is_not_picked() -> None:
    units = _clusters(200, 4)
    rows, _ = herd(units, np.ones(200), 100, units[:100], 0.02)
    assert sorted(rows.tolist()) == list(range(100, 200))


def test_blocks_share_the_picks_and_know_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(herding, "BLOCK", 100)
    units = np.repeat(_clusters(84, 5), 3, 0)  # 252 rows in 3 blocks, a copy in each
    weights = np.random.default_rng(5).random(252) + 0.1
    rows, gains = herd(units, weights, 50, units[:0], 0.05)
    assert len(set(rows.tolist())) == 50 and (np.diff(gains) <= 0).all()
    assert np.bincount(rows % 3).tolist() == [17, 17, 16]
    assert len({row // 3 for row in rows.tolist()}) == 50  # no copy of a pick
    first, _ = herd(units[::3], weights[::3], 17, units[:0], 0.05)
    assert set((3 * first).tolist()) == {row for row in rows.tolist() if row % 3 == 0}


def test_the_table_of_the_kernel_is_the_same_with_any_exponential() -> None:
    exact = 2.0**16 * np.exp(-np.arange(12 * 1024) / 1024)
    assert np.abs(exact % 1 - 0.5).min() > 1e-7  # far more than the last bits of a library


@pytest.mark.parametrize("copies", [1, 5])
def test_the_width_follows_the_distances_whatever_is_repeated(copies: int) -> None:
    units = _clusters(900, 6)
    pairs = squared_distances(units, units)[np.triu_indices(900, 1)]
    repeated = np.random.default_rng(0).permutation(np.repeat(units, copies, 0))
    expected = 0.19 * np.quantile(pairs, 0.9)
    assert kernel_width(repeated) == pytest.approx(expected, rel=0.05)
    still = np.concatenate([units, np.repeat(units[:1], 1500, 0)])  # most are one scene
    assert kernel_width(still) == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("units", [np.zeros((5, 3)), np.ones((400, 3)), np.ones((1, 3))])
def test_copies_alone_have_a_width_and_are_picked_in_order(units: NDArray[np.float64]) -> None:
    units = unit_integers(units)
    assert kernel_width(units) > 0
    k = min(len(units), 4)
    rows, gains = herd(units, np.ones(len(units)), k, units[:0], kernel_width(units))
    assert rows.tolist() == list(range(k)) and gains.tolist() == [1.0, 0.0, 0.0, 0.0][:k]
