"""Embeddings of length 1 as integers, whose products are exact in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = 4096
"""No vector is longer. A sum of products of two is at most its square, 2**24, up to which float32
holds every integer; so is each part of that sum, in whatever order a BLAS adds it."""

_ROWS = 4096


def unit_integers(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Scale each vector to the same length, and round it to integers.

    The length, near 4,096, depends on D alone. The components of all results, and products and
    squared distances of them, are the same on any machine. A zero vector stays zero.

    Args:
        vectors: finite float [N, D].

    Returns:
        Integers in float32 [N, D].
    """
    units = np.zeros(vectors.shape, np.float32)
    for rows in blocks(len(vectors), _ROWS):
        units[rows] = _units(np.asarray(vectors[rows], np.float64))
    return units


def count_directions(vectors: NDArray[Any]) -> int:
    """Count the vectors, finite float [N, D], that differ as :func:`unit_integers`."""
    return len({unit.tobytes() for unit in unit_integers(vectors).astype(np.int16)})


def unit_length(dimensions: int) -> float:
    """The length that :func:`unit_integers` scales to: rounding may add sqrt(D) / 2 to it."""
    return float(np.floor(_LENGTH - np.sqrt(dimensions) / 2))


def squared_distances(
    ones: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the squared distances of unit vectors, divided by that of orthogonal ones.

    They are the same numbers on any machine: products are exact, and what follows has one order.

    Args:
        ones: of :func:`unit_integers`, [N, D].
        others: likewise [M, D].

    Returns:
        float32 [N, M], from 0 for equal directions, by 1 for orthogonal, to 2 for opposite ones.
    """
    distances: NDArray[np.float32] = ones @ others.T
    distances *= -2
    # The two are added first, so that the distance is the same in both directions.
    distances += squares(ones)[:, None] + squares(others)[None, :]
    np.maximum(distances, 0, out=distances)
    distances *= np.float32(1 / (2 * unit_length(ones.shape[1]) ** 2))
    return distances


def squares(units: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared length of each vector, at most 2**24: exact in float32 [N]."""
    lengths: NDArray[np.float32] = np.einsum("nd,nd->n", units, units)
    return lengths


def blocks(count: int, size: int) -> Iterator[slice]:
    """Divide ``range(count)`` into slices of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _units(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    dimensions = vectors.shape[1]
    largest = np.abs(vectors).max(1, initial=0.0, keepdims=True)
    largest[largest == 0] = 1
    # Rounded first, so that the sum of squares is an exact integer too.
    bits = (53 - int(np.ceil(np.log2(max(dimensions, 2))))) // 2
    whole = np.rint(vectors / largest * (2.0**bits - 1))
    lengths = np.sqrt(np.einsum("nd,nd->n", whole, whole))[:, None]
    lengths[lengths == 0] = 1
    units: NDArray[np.float64] = np.rint(whole * (unit_length(dimensions) / lengths))
    return units
