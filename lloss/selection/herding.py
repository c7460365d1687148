"""Picks that represent: greedy weighted coverage, also called herding.

Uncertainty Herding (Bae, Oh, Hoang & Sutherland 2024, https://arxiv.org/abs/2412.20644), with any
weights. Of all rows i, covered by a set S as far as ``max of k(z_i, z_s) over s in S``, each pick
adds most to ``sum of w_i * coverage_i``; the labeled images are in S from the start. A pick in a
dense region of heavy rows adds much, a near-duplicate of a pick nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lloss.selection.unit_vectors import blocks, squared_distances

BLOCK = 4096
"""Rows whose kernel is held at once: 64 MiB."""

_CENTERS = 1024
_FULL = 1 << 16
"""Coverage of a row by itself. Coverage is an integer, weights are up to 2**20, and a block has
2**12 rows: each sum is an exact integer in float64."""

_HEAVIEST = 1 << 20
_STEPS = 1024
"""Entries of the kernel's table for one width."""

_TABLE = np.rint(_FULL * np.exp(-np.arange(12 * _STEPS + 1) / _STEPS)).astype(np.float32)
"""The kernel at multiples of 1/1024 of its width; the last one is 0."""
_TABLE[-1] = 0

_WIDTH_ROWS = 1000
_FAR = 0.9
_WIDTH = 0.19
"""Compared in benchmarks/LOG.md."""


def herd(
    units: NDArray[np.float32],
    weights: NDArray[np.float64],
    k: int,
    labeled: NDArray[np.float32],
    width: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pick K rows, each adding most to the weighted coverage of all rows.

    Up to 4,096 rows this is the greedy algorithm. More are divided into blocks, every n-th row into
    the same one: each has its share of the picks, and is covered by the picks of those before it,
    too. Sums are exact integers, so that the picks are the same on any machine; ties fall to the
    earlier row.

    Args:
        units: embeddings of :func:`.unit_integers`, [N, D].
        weights: positive [N].
        k: at most N.
        labeled: embeddings that cover from the start, [L, D].
        width: of the kernel ``exp(-d / width)``, with d a squared distance as
            :func:`.squared_distances` scales it.

    Returns:
        Row numbers, int64 [k], and what each added, as a share of the whole weight of its block,
        float64 [k], largest first.
    """
    parts = -(-len(units) // BLOCK)
    whole = np.maximum(np.rint(weights / weights.max() * _HEAVIEST), 1)
    rows, gains = np.empty(0, np.int64), np.empty(0)
    for part in range(parts):
        block = np.arange(part, len(units), parts)
        share = k // parts + (part < k % parts)
        covered = np.maximum(
            _covered(units[block], labeled, width), _covered(units[block], units[rows], width)
        )
        picked, added = _Block(units[block], whole[block], covered, width).pick(share)
        rows, gains = np.append(rows, block[picked]), np.append(gains, added)
    order = np.argsort(-gains, kind="stable")
    return rows[order], gains[order]


def kernel_width(units: NDArray[np.float32]) -> float:
    """Return a width of the kernel that fits embeddings of any network, [N, D].

    It is a share of a high quantile of the squared distances between rows, which near-duplicates
    lower only if they are most of all rows; 1 where all rows are copies of each other.
    """
    some = units[:: -(-len(units) // _WIDTH_ROWS)]
    distances = squared_distances(some, some)[np.triu_indices(len(some), 1)]
    apart = distances[distances > 0]
    far = float(np.quantile(apart, _FAR, method="nearest")) if len(apart) else 1.0
    return _WIDTH * far


class _Block:
    """Rows with the kernel between all of them."""

    def __init__(
        self,
        units: NDArray[np.float32],
        weights: NDArray[np.float64],
        covered: NDArray[np.float32],
        width: float,
    ) -> None:
        self._weights, self._covered = weights, covered
        self._kernel = np.empty((len(units), len(units)), np.float32)
        for rows in blocks(len(units), _CENTERS):
            others = slice(rows.start, None)
            part = _kernel(squared_distances(units[rows], units[others]), width)
            self._kernel[rows, others], self._kernel[others, rows] = part, part.T

    def pick(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Pick K rows greedily; see :func:`herd`.

        What a row adds only falls, so an old figure bounds it from above: after a pick only the
        rows whose bound is the largest are measured again.
        """
        bounds = self._gains(np.arange(len(self._kernel)))
        fresh = np.ones(len(bounds), np.bool_)
        picked, gains = np.empty(k, np.int64), np.empty(k)
        for number in range(k):
            row, some = int(bounds.argmax()), 4
            while not fresh[row]:
                rows = np.append(self._promising(bounds, fresh, some), row)
                bounds[rows], fresh[rows] = self._gains(rows), True
                row, some = int(bounds.argmax()), min(4 * some, 256)
            picked[number], gains[number] = row, bounds[row]
            np.maximum(self._covered, self._kernel[row], out=self._covered)
            bounds[row] = -1
            fresh[:] = False
            fresh[picked[: number + 1]] = True
        return picked, gains / (self._weights.sum() * _FULL)

    def _gains(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each of these rows would add, exact."""
        gains = np.empty(len(rows))
        for some in blocks(len(rows), 256):
            added = self._kernel[rows[some]] - self._covered
            np.maximum(added, 0, out=added)
            gains[some] = added.astype(np.float64) @ self._weights
        return gains

    @staticmethod
    def _promising(
        bounds: NDArray[np.float64], fresh: NDArray[np.bool_], count: int
    ) -> NDArray[np.int64]:
        """Rows of the largest bounds that are to be measured again; ties may be missing."""
        count = min(count, len(bounds))
        rows = np.argpartition(bounds, len(bounds) - count)[-count:]
        return rows[~fresh[rows]]


def _kernel(distances: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """``exp(-d / width)`` in steps, as integers up to 2**16."""
    distances *= np.float32(_STEPS / width)
    np.minimum(distances, len(_TABLE) - 1, out=distances)
    kernel: NDArray[np.float32] = _TABLE[distances.astype(np.int32)]
    return kernel


def _covered(
    units: NDArray[np.float32], centers: NDArray[np.float32], width: float
) -> NDArray[np.float32]:
    """How far each row is covered by the nearest center: float32 [N]."""
    nearest = np.full(len(units), np.inf, np.float32)
    for some in blocks(len(centers), _CENTERS):
        np.minimum(nearest, squared_distances(units, centers[some]).min(1), out=nearest)
    return _kernel(nearest, width)
