"""Near-duplicates: picks so close to an earlier pick or a labeled image that they add little."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import SelectionError
from lloss.selection.unit_vectors import blocks, squared_distances, unit_integers

_OTHERS = 4096
_PICKS = 256
"""Picks that are compared with each other at once."""


def distinct(picks: NDArray[Any], taken: NDArray[Any], min_distance: float) -> NDArray[np.bool_]:
    """Mark the picks that are no near-duplicates: bool [K].

    A pick is one where its cosine distance (1 − cosine, 0 to 2) to a taken image or to an earlier
    pick that is none itself is below ``min_distance``.

    Args:
        picks: finite embeddings in the order picked, float [K, D].
        taken: those of images labeled already, float [L, D]; may be empty.
        min_distance: 0 for no near-duplicates.
    """
    units, known = unit_integers(picks), unit_integers(taken)
    kept = np.ones(len(units), np.bool_)
    for rows in blocks(len(units), _PICKS):
        before = units[: rows.start][kept[: rows.start]]
        kept[rows] = _apart(units[rows], known, min_distance)
        kept[rows] &= _apart(units[rows], before, min_distance)
        near = squared_distances(units[rows], units[rows]) < min_distance
        for row, others in enumerate(near, rows.start):
            kept[row] &= not np.any(others[: row - rows.start] & kept[rows.start : row])
    return kept


def _apart(
    units: NDArray[np.float32], others: NDArray[np.float32], min_distance: float
) -> NDArray[np.bool_]:
    """Mark the vectors that are at least so far from all others."""
    apart = np.ones(len(units), np.bool_)
    for some in blocks(len(others), _OTHERS):
        apart &= (squared_distances(units, others[some]) >= min_distance).all(1)
    return apart


def near_duplicate_distance(
    embeddings: NDArray[Any], augmented: NDArray[Any], quantile: float = 0.9
) -> float:
    """Measure how far apart near-duplicates are: the ``min_distance`` that sets them apart.

    Args:
        embeddings: of images, float [P, D].
        augmented: of a copy of each, changed as near-duplicates differ: a shift, another
            brightness, another JPEG.
        quantile: the share of these copies that ``min_distance`` is to call near-duplicates.

    Returns:
        That quantile of the pairs' cosine distances.

    Raises:
        SelectionError: no pair has finite embeddings.
    """
    usable = np.isfinite(embeddings).all(1) & np.isfinite(augmented).all(1)
    if not usable.any():
        raise SelectionError(
            f"none of {len(embeddings)} images and their augmented copies has finite embeddings"
        )
    pairs = zip(unit_integers(embeddings[usable]), unit_integers(augmented[usable]), strict=True)
    distances = [float(squared_distances(one[None], other[None])[0, 0]) for one, other in pairs]
    return float(np.quantile(distances, quantile, method="higher"))
