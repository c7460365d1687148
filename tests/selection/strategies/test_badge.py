from __future__ import annotations

import numpy as np
import pytest

from lloss.selection.strategies.badge import OuterProducts, gradients


def test_distances_are_those_of_the_gradients_written_out() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), 12).astype(np.float32)
    embeddings = random.integers(-50, 51, (12, 6)).astype(np.float64)
    chosen = np.eye(4)[probabilities.argmax(1)]
    outer = np.einsum("nc,nd->ncd", probabilities - chosen, embeddings).reshape(12, -1)
    found = gradients(probabilities, embeddings)
    scale = found.squares[0] / (outer[0] ** 2).sum()
    assert found.squares / scale == pytest.approx((outer**2).sum(1), rel=1e-5)
    for row in range(12):
        expected = ((outer - outer[row]) ** 2).sum(1)
        assert found.measure(row) / scale == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found.spread(12, 5)[0] == (outer**2).sum(1).argmax()


def test_equal_images_are_no_distance_apart() -> None:
    random = np.random.default_rng(1)
    probabilities = np.repeat(random.dirichlet(np.ones(7), 3), 2, 0)
    embeddings = np.repeat(random.integers(-(2**20), 2**20, (3, 512)), 2, 0).astype(np.float64)
    found = gradients(probabilities, embeddings)
    for row in range(6):
        assert found.measure(row)[row ^ 1] == found.measure(row)[row] == 0.0


def test_picks_depend_neither_on_the_order_of_numbers_nor_on_the_length_of_a_sum() -> None:
    random = np.random.default_rng(2)
    left = np.rint(random.normal(0, 1e5, (200, 10)))
    right = np.rint(random.normal(0, 1e5, (200, 512)))
    picks = OuterProducts(left, right).spread(50, 3).tolist()
    assert len(set(picks)) == 50
    for _ in range(3):
        shuffled = OuterProducts(left[:, ::-1], right[:, random.permutation(512)])
        assert shuffled.spread(50, 3).tolist() == picks


def test_a_draw_follows_the_seed() -> None:
    random = np.random.default_rng(3)
    products = OuterProducts(random.normal(size=(40, 1)), np.rint(random.normal(0, 99, (40, 8))))
    assert products.spread(9, 1).tolist() != products.spread(9, 2).tolist()
    assert products.spread(9, 1).tolist() == products.spread(9, 1).tolist()
