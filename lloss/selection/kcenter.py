"""Picks that cover: k-center greedy (Sener & Savarese 2018, https://arxiv.org/abs/1708.00489)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import SelectionError

_PICKS = 128
"""Picks after which every row's distance is brought up to date by one matrix product."""

_ROWS = 4096
"""Rows that are widened to float64 at once."""

_EXTREME = 1024
"""An embedding so many times as large as the median one does not measure likeness: scaled beside
it, the differences between all others would be lost."""


def spreadable(embeddings: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the embeddings, float [N, D], to which distances can be measured: bool [N].

    They are finite, and not extreme compared with the others.
    """
    largest = np.empty(len(embeddings))
    for rows in _blocks(len(embeddings)):
        block = np.asarray(embeddings[rows], np.float64)
        largest[rows] = np.abs(block).max(1, initial=0.0)  # NaN if one of them is
    usable = np.isfinite(largest)
    usual = largest[usable & (largest > 0)]
    if len(usual):
        usable &= ~(largest > _EXTREME * np.median(usual))
    return usable


def k_center(
    embeddings: NDArray[Any], k: int, labeled: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """k-center greedy: each pick is the row farthest from all picks before it.

    The first is row 0, or the one farthest from all labeled images where there are some.

    Distances are Euclidean, between embeddings rounded to so few bits that every sum is an exact
    integer in float64. Whatever order a BLAS adds in, the result is the same bytes.

    A distance to the nearest pick only falls, so an old one bounds it from above: after a pick,
    only rows whose bound is the largest are measured again, all others once in a while by matrix
    products: 10,000 picks of 40,000 rows, D = 512, take 15 seconds of a core.

    Args:
        embeddings: finite float [N, D], best candidate first; ties fall to the earlier row.
        k: at most N.
        labeled: finite float [L, D], of images that count as picks already.

    Returns:
        Row numbers in the order picked, int64 [k].
    """
    known = np.empty((0, embeddings.shape[1])) if labeled is None else labeled
    points = as_integers(np.concatenate([embeddings, known]) if len(known) else embeddings)
    distances = _Distances(points[: len(embeddings)])
    if len(known):
        distances.start(points[len(embeddings) :])
    picked = np.empty(k, np.int64)
    for number in range(k):
        first = not number and not len(known)
        picked[number] = distances.pick(0 if first else distances.farthest())
    return picked


class _Distances:
    """Squared distances to the nearest pick, or bounds of them from above."""

    def __init__(self, points: NDArray[np.int32]) -> None:
        self._points = points
        self._nearest = np.full(len(points), np.inf)
        self._squares = np.empty(len(points))
        for rows in _blocks(len(points)):
            block = points[rows].astype(np.float64)
            self._squares[rows] = np.einsum("nd,nd->n", block, block)
        # Picks that not every row has been measured to yet, and how many of them each row has.
        self._centers = np.empty((_PICKS, points.shape[1]))
        self._center_squares = np.empty(_PICKS)
        self._recent = 0
        self._measured = np.zeros(len(points), np.int64)

    def start(self, centers: NDArray[np.int32]) -> None:
        """Measure all rows to these points, before any pick."""
        for some in _blocks(len(centers), _PICKS):
            block = centers[some].astype(np.float64)
            squares = np.einsum("nd,nd->n", block, block)
            for rows in _blocks(len(self._points)):
                self._nearest[rows] = np.minimum(
                    self._nearest[rows], self._squared(rows, block, squares)
                )

    def pick(self, row: int) -> int:
        """Make this row a pick."""
        if self._recent == _PICKS:
            for rows in _blocks(len(self._points)):
                self._measure(np.arange(rows.start, rows.stop))
            self._recent = 0
            self._measured[:] = 0
        self._centers[self._recent] = self._points[row]
        self._center_squares[self._recent] = self._squares[row]
        self._recent += 1
        self._nearest[row] = -1.0
        return row

    def farthest(self) -> int:
        """The earliest of the rows farthest from all picks."""
        some = 1
        while True:
            row = int(self._nearest.argmax())
            if self._measured[row] == self._recent or self._nearest[row] < 0:
                # Up to date and no bound is larger; an earlier row as far would have been found.
                return row
            self._measure(self._promising(row, some))
            some = min(4 * some, _ROWS)

    def _promising(self, row: int, count: int) -> NDArray[np.int64]:
        """The rows of the largest bounds, ``row`` among them."""
        if count == 1:
            return np.array([row])
        count = min(count, len(self._nearest))
        rows = np.argpartition(self._nearest, len(self._nearest) - count)[-count:]
        stale = rows[self._measured[rows] < self._recent]
        return np.append(stale, row)

    def _measure(self, rows: NDArray[np.int64]) -> None:
        """Bring these rows up to date."""
        first = int(self._measured[rows].min())
        centers = self._centers[first : self._recent]
        distances = self._squared(rows, centers, self._center_squares[first : self._recent])
        # A pick stays below every row that is none: its own distance is never measured again.
        picked = self._nearest[rows] < 0
        self._nearest[rows] = np.where(picked, -1, np.minimum(self._nearest[rows], distances))
        self._measured[rows] = self._recent

    def _squared(
        self, rows: NDArray[np.int64] | slice, centers: NDArray[Any], squares: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Squared distances of rows to the nearest of some centers."""
        products = self._points[rows].astype(np.float64) @ centers.T
        nearest: NDArray[np.float64] = (squares - 2 * products).min(1) + self._squares[rows]
        return nearest


def _blocks(count: int, size: int = _ROWS) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def as_integers(values: NDArray[Any]) -> NDArray[np.int32]:
    """Round embeddings, finite float [N, D], to integers: scaled by one number, int32 [N, D].

    Sums of products and squared distances of them are exact in float64.
    """
    # The largest squared distance is 4 * D * (2**bits)**2 and must stay below 2**53.
    bits = (53 - 2 - int(np.ceil(np.log2(max(values.shape[1], 2))))) // 2
    largest = 0.0
    for rows in _blocks(len(values)):
        block = np.asarray(values[rows], np.float64)
        if not np.isfinite(block).all():
            raise SelectionError("an embedding is infinite or NaN; choose --strategy top")
        largest = max(largest, float(np.abs(block).max(initial=0.0)))
    points = np.zeros(values.shape, np.int32)
    if largest:
        for rows in _blocks(len(values)):
            block = np.asarray(values[rows], np.float64)
            points[rows] = np.rint(block / largest * (2.0**bits - 1))
    return points
