"""Embeddings of one length, with exact products."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.selection.unit_vectors import squared_distances, squares, unit_integers, unit_length


def _vectors(dimensions: int, count: int = 60, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return np.maximum(random.normal(size=(count, dimensions)), -0.5).astype(np.float32)


@pytest.mark.parametrize("dimensions", [1, 2, 4, 512, 2048, 20_000])
def test_units_are_rounded_directions_and_no_longer_than_their_products_allow(
    dimensions: int,
) -> None:
    vectors = _vectors(dimensions)
    units, length = unit_integers(vectors), unit_length(dimensions)
    assert units.dtype == np.float32 and (units == np.rint(units)).all()
    exact = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    assert np.abs(units - length * exact).max() <= 0.51
    whole = units.astype(np.int64)
    assert (whole**2).sum(1).max() <= 2**24
    assert (squares(units) == (whole**2).sum(1)).all()
    assert (units @ units.T == whole @ whole.T).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_neither_scale_nor_the_order_of_columns_changes_a_distance(scale: float) -> None:
    vectors = _vectors(512).astype(np.float64)
    units = unit_integers(vectors)
    order = np.random.default_rng(1).permutation(512)
    other = unit_integers(vectors[:, order] * scale)
    assert np.abs(other - units[:, order]).max() <= 1  # a scale may round the other way
    same = unit_integers(vectors[:, order])
    assert (same == units[:, order]).all()
    assert (squared_distances(same, same) == squared_distances(units, units)).all()


def test_distances_are_those_of_directions() -> None:
    vectors = _vectors(64)
    vectors[1], vectors[2], vectors[3] = 7 * vectors[0], -vectors[0], 0
    units = unit_integers(vectors)
    distances = squared_distances(units[:20], units)
    exact = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    expected = ((exact[:20, None] - exact[None]) ** 2).sum(2) / 2
    assert np.allclose(distances, expected, atol=2e-3)
    assert distances[0, 1] == distances[3, 3] == 0
    assert distances[0, 2] == pytest.approx(2, abs=1e-3)
    assert (units[3] == 0).all()
