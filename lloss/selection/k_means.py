"""k-means and its first centers, the same on any machine.

Weighted draws and centers are exact integers in float64. A draw depends on the seed, on how many
draws came before it, and on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lloss.selection.hashing import draw_hash
from lloss.selection.unit_vectors import blocks, squares

_ROWS = 4096
_ITERATIONS = 30
"""Of Lloyd's algorithm, at most."""

Measure = Callable[[int], NDArray[np.float64]]
"""A row's squared distances to all rows, float64 [N]; equal rows are exactly 0 apart."""


def k_means_plus_plus(measure: Measure, first: int, k: int, seed: int) -> NDArray[np.int64]:
    """Draw K rows, each with a probability in proportion to its squared distance to those before.

    After Arthur & Vassilvitskii 2007 ("k-means++: the advantages of careful seeding").

    Args:
        measure: squared distances of a row.
        first: the row to begin with.
        k: at most N.
        seed: of the draws.

    Returns:
        Row numbers in the order drawn, int64 [k]; those without any distance left come last, in
        the order of the rows.
    """
    picked, row = np.empty(k, np.int64), first
    nearest = measure(first).copy()
    unpicked = np.ones(len(nearest), np.bool_)
    for number in range(k):
        if number:
            row = _draw(nearest, unpicked, draw_hash(str(number), seed))
            np.minimum(nearest, measure(row), out=nearest)
        picked[number] = row
        unpicked[row] = False
    return picked


def _draw(weights: NDArray[np.float64], allowed: NDArray[np.bool_], drawn: int) -> int:
    """Draw a row in proportion to its weight; ``drawn`` is uniform in 0 to 2**64 - 1."""
    largest = float(weights.max())
    if largest <= 0:
        return int(allowed.argmax())
    bits = 52 - int(np.ceil(np.log2(max(len(weights), 2))))
    sums = np.cumsum(np.floor(weights / largest * 2.0**bits))  # exact: integers below 2**53
    place = int(sums[-1]) * drawn >> 64
    return int(np.searchsorted(sums, place, side="right"))


def k_means(points: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int64]:
    """Assign each row to one of K clusters by Lloyd's algorithm from k-means++ centers.

    Args:
        points: of :func:`.unit_integers`, float32 [N, D].
        k: at most N.
        seed: of the first centers.

    Returns:
        The cluster of each row, int64 [N]; a cluster may be empty.
    """
    lengths = squares(points).astype(np.float64)

    def measure(row: int) -> NDArray[np.float64]:
        squared: NDArray[np.float64] = lengths + lengths[row] - 2 * (points @ points[row])
        return squared

    first = draw_hash("first", seed) % len(points)
    centers = points[k_means_plus_plus(measure, first, k, seed)]
    clusters = _assigned(points, centers)
    for _ in range(_ITERATIONS):
        before, centers = clusters, _centers(points, clusters, centers)
        clusters = _assigned(points, centers)
        if (clusters == before).all():
            break
    return clusters


def _assigned(points: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.int64]:
    """The nearest center of each row, the earlier one where two are as near."""
    lengths = squares(centers).astype(np.float64)
    nearest = [
        (lengths - 2 * (points[rows] @ centers.T)).argmin(1) for rows in blocks(len(points), _ROWS)
    ]
    return np.concatenate(nearest)


def _centers(
    points: NDArray[np.float32], clusters: NDArray[np.int64], before: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean of each cluster's rows; an empty cluster keeps its center.

    Rounded toward zero, to integers: no center is longer than a row, so products stay exact.
    """
    order = np.argsort(clusters, kind="stable")
    counts = np.bincount(clusters, minlength=len(before))
    ends = np.cumsum(counts)
    centers = before.copy()
    for cluster in np.flatnonzero(counts):
        rows = order[ends[cluster] - counts[cluster] : ends[cluster]]
        centers[cluster] = np.trunc(points[rows].sum(0, dtype=np.float64) / counts[cluster])
    return centers
