"""The strategy ``typiclust``: the most typical images of clusters without a label.

Hacohen et al. 2022, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets",
https://arxiv.org/abs/2202.02794.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lloss.selection.k_means import k_means
from lloss.selection.strategies.random_rows import RandomRows
from lloss.selection.strategies.strategy import EMBEDDING, Candidates, Picks
from lloss.selection.unit_vectors import blocks, squares, unit_integers

MOST_CLUSTERS = 500
_NEIGHBORS = 20
_SMALL = 5
"""A cluster of at most so many images is used last, as the authors leave it out."""
_ROWS = 512
_STEPS = 1024


class TypiClust(RandomRows):
    """Pick the most typical image of each cluster, for a first set and for low budgets."""

    name = "typiclust"
    title = "TypiClust: the most typical of K clusters without labels"
    vectors = (EMBEDDING,)
    labeled = True

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Cluster and pick."""
        points = unit_integers(candidates.columns[EMBEDDING])
        labeled = candidates.labeled.get(EMBEDDING)
        known = points[:0] if labeled is None else unit_integers(labeled)
        return Picks(typical_rows(points, known, k, candidates.seed), ["typical of a cluster"] * k)


def typical_rows(
    points: NDArray[np.float32], labeled: NDArray[np.float32], k: int, seed: int
) -> NDArray[np.int64]:
    """Choose K rows: the most typical of each cluster, those without labeled images first.

    All are divided into as many clusters as there are labeled images and picks, at most 500. The
    clusters are visited in turn, from few labeled images to many, and from large to small.

    Args:
        points: of :func:`.unit_integers`, float32 [N, D].
        labeled: those of labeled images, float32 [L, D].
        k: at most N.
        seed: of k-means.

    Returns:
        Row numbers in the order picked, int64 [k].
    """
    everything = np.concatenate([labeled, points])
    count = min(len(labeled) + k, MOST_CLUSTERS, len(everything))
    clusters = k_means(everything, count, seed)
    covered = np.bincount(clusters[: len(labeled)], minlength=count)
    members = clusters[len(labeled) :]
    sizes = np.bincount(members, minlength=count)
    order = np.lexsort([-sizes, covered])  # stable: of equal ones the earlier comes first
    order = order[sizes[order] > 0]
    picked: list[int] = []
    for chosen in (order[sizes[order] > _SMALL], order[sizes[order] <= _SMALL]):
        ranked: list[NDArray[np.int64]] = []
        for cluster in chosen:  # the first K of them at most are visited
            if len(ranked) == k - len(picked):
                break
            rows = np.flatnonzero(members == cluster)
            ranked.append(rows[np.argsort(_distances_to_neighbors(points[rows]), kind="stable")])
        picked += _in_turn(ranked)[: k - len(picked)]
    return np.array(picked, np.int64)


def _in_turn(ranked: list[NDArray[np.int64]]) -> list[int]:
    """The first row of each cluster, then the second of each, and so on."""
    longest = max(map(len, ranked), default=0)
    return [int(rows[turn]) for turn in range(longest) for rows in ranked if turn < len(rows)]


def _distances_to_neighbors(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """The summed distances of each row to its 20 nearest others, float64 [N].

    In a cluster of fewer than 40, to the nearer half. Distances are rounded to integers, so that
    their sums are exact.
    """
    neighbors, lengths = min(_NEIGHBORS, len(points) // 2), squares(points).astype(np.float64)
    sums = np.empty(len(points))
    for rows in blocks(len(points), _ROWS):
        squared = lengths[rows, None] + lengths - 2 * (points[rows] @ points.T)
        nearest = np.partition(squared, neighbors, 1)[:, : neighbors + 1]  # with itself, at 0
        sums[rows] = np.rint(np.sqrt(nearest) * _STEPS).sum(1)
    return sums
