"""The strategies ``badge`` and ``loss-badge``: k-means++ on vectors as long as images are hard.

BADGE is of Ash et al. 2020, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
Bounds", https://arxiv.org/abs/1906.03671.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.selection.k_means import k_means_plus_plus
from lloss.selection.kcenter import as_integers, spreadable
from lloss.selection.strategies.random_rows import RandomRows
from lloss.selection.strategies.strategy import EMBEDDING, Candidates, Picks, finite_rows
from lloss.selection.unit_vectors import unit_integers

PROBABILITIES = "probabilities"
"""The column of the classes' probabilities."""


class Badge(RandomRows):
    """Draw images whose last layer's gradients are long and unlike those drawn before.

    The gradient is that of the cross entropy if the class predicted were the label:
    ``(p - onehot(argmax p)) ⊗ z``. The longest is first; then each image is drawn with a
    probability in proportion to its squared distance to the nearest drawn before. ``z`` is
    the column that ``embedding`` says, which should be the input of the last layer.
    """

    name = "badge"
    title = "BADGE: K long and unlike gradients of the last layer"
    vectors = (EMBEDDING, PROBABILITIES)

    def usable(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Mark finite probabilities, and embeddings that distances can be measured to."""
        return spreadable(columns[EMBEDDING]) & finite_rows(columns[PROBABILITIES])

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Draw by k-means++."""
        columns = candidates.columns
        points = as_integers(columns[EMBEDDING]).astype(np.float64)
        rows = gradients(columns[PROBABILITIES], points).spread(k, candidates.seed)
        return Picks(rows, ["longest gradient", *["gradient unlike those before it"] * (k - 1)])


class LossBadge(RandomRows):
    """Draw images of a high score that are unlike those drawn before.

    BADGE with the gradient's length replaced by a weight made of the score: k-means++ on unit
    embeddings times the weight. It needs no classes.
    """

    name = "loss-badge"
    title = "BADGE with the score in place of the gradient's length, for any task"
    vectors = (EMBEDDING,)
    uses_scores = True
    weighted = True

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Draw by k-means++."""
        weights, points = candidates.columns["weight"], unit_integers(candidates.columns[EMBEDDING])
        rows = OuterProducts(weights[:, None], points).spread(k, candidates.seed)
        first = f"{candidates.order} {candidates.by}"
        return Picks(rows, [first, *[f"{first} and unlike those before it"] * (k - 1)])

    def how(self, order: str, by: str) -> str:
        """Score and likeness."""
        return f"by {order} {by}, unlike each other"


class OuterProducts:
    """Vectors ``a ⊗ z``, whose distances come from the inner products of ``a`` and of ``z``.

    Equal vectors are exactly 0 apart, and nothing of the size C × D is made for any row.

    Args:
        left: a, float64 [N, C]: integers whose sums of products are exact, or C = 1.
        right: z, float [N, D]: integers whose sums of products are exact.
    """

    def __init__(self, left: NDArray[np.float64], right: NDArray[Any]) -> None:
        self._left, self._right = left, right
        lengths = [np.einsum("nd,nd->n", one, one) for one in (left, right)]
        self.squares: NDArray[np.float64] = lengths[0] * lengths[1]

    def measure(self, row: int) -> NDArray[np.float64]:
        """Squared distances of a row to all, float64 [N]."""
        products = (self._left @ self._left[row]) * (self._right @ self._right[row])
        squared: NDArray[np.float64] = self.squares + self.squares[row] - 2 * products
        return np.maximum(squared, 0.0)

    def spread(self, k: int, seed: int) -> NDArray[np.int64]:
        """Draw K rows by k-means++ from the longest vector on, int64 [k]."""
        return k_means_plus_plus(self.measure, int(self.squares.argmax()), k, seed)


def gradients(probabilities: NDArray[Any], embeddings: NDArray[np.float64]) -> OuterProducts:
    """Gradients of the cross entropy by the last layer's weights, at the class predicted.

    Args:
        probabilities: of the classes, float [N, C].
        embeddings: inputs of the last layer as integers, float64 [N, D].
    """
    change = np.array(probabilities, np.float64)
    change[np.arange(len(change)), change.argmax(1)] -= 1.0
    bits = (52 - int(np.ceil(np.log2(max(change.shape[1], 2))))) // 2
    return OuterProducts(np.rint(change * 2.0**bits), embeddings)
