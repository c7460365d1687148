"""What a strategy is: which rows it reads, and which of them it picks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

EMBEDDING = "embedding"
"""The vectors that likeness is measured in, whichever column of the scores they are from."""


@dataclass(frozen=True)
class Candidates:
    """The rows that a strategy chooses from.

    Attributes:
        ids: [N], in the order of the first pass: smallest key first.
        columns: ``score`` float64 [N], the column selected by; ``key`` [N], of the first pass;
            ``weight`` float64 [N], positive, for a weighted strategy; and those that the strategy
            names: numbers float64 [N], vectors float32 [N, D].
        labeled: the same vectors of images that are labeled already, float32 [L, D]; without any
            such image, or for a strategy that does not ask for them, it is empty.
        seed: of random draws.
        by: the name of the column ``score``.
        order: which scores are worth labeling first: ``highest``, ``lowest``, or "" if unknown.
        bound: the last key, where the first pass left further rows out.
    """

    ids: Sequence[str]
    columns: Mapping[str, NDArray[Any]]
    labeled: Mapping[str, NDArray[Any]]
    seed: int = 0
    by: str = ""
    order: str = ""
    bound: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def oriented(self) -> NDArray[np.float64]:
        """The scores with their sign such that the highest are worth labeling first."""
        scores: NDArray[np.float64] = self.columns["score"]
        return -scores if self.order == "lowest" else scores

    def take(self, rows: NDArray[np.int64]) -> Candidates:
        """Return the candidates of some rows, in this order."""
        ids = [self.ids[row] for row in rows.tolist()]
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(self, ids=ids, columns=columns)


@dataclass(frozen=True)
class Picks:
    """The chosen rows of the candidates in the order picked, int64 [K], and why each, [K].

    A reason is a few words without a comma.
    """

    rows: NDArray[np.int64]
    reasons: Sequence[str]


class Strategy(ABC):
    """How to choose K images; see :mod:`lloss.selection.strategies` for how to add one.

    A first pass streams ``id``, the score and ``scalars`` of all rows and keeps the ``limit`` rows
    of the smallest ``keys``. The ``vectors`` of these are read, and ``choose`` picks among them.

    Attributes:
        name: what users call it.
        title: half a line for ``--help``.
        scalars: further columns of numbers that it reads.
        vectors: columns of vectors that it reads; ``embedding`` stands for the column that the
            user names or, by default, ``pretrained_embedding`` where the scores have it.
        labeled: whether it reads the vectors of labeled images too.
        uses_scores: whether the column selected by decides anything.
        weighted: whether it reads positive weights made of the scores, if it uses any
            (:mod:`lloss.selection.weights`).
        class_weighted: whether rare predicted classes can weigh more.
    """

    name: str
    title: str
    scalars: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    labeled: bool = False
    uses_scores: bool = True
    weighted: bool = False
    class_weighted: bool = False

    def limit(self, k: int) -> int | None:
        """How many rows the first pass keeps; None for all."""
        return k

    def keys(self, ids: pa.Array, scores: NDArray[np.float64], seed: int) -> NDArray[Any]:
        """Give each row a key; the smallest are kept, and the smaller id where two are equal.

        Args:
            ids: text [N].
            scores: finite float64 [N], the highest worth labeling first; of a weighted strategy
                the weights.
            seed: of random draws, which an id and this decide (:mod:`lloss.selection.hashing`).
        """
        return best_first(scores)

    def usable(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Mark the rows whose vectors can be worked with: bool [N]."""
        finite = [finite_rows(columns[name]) for name in self.vectors]
        return np.asarray(np.logical_and.reduce(finite), np.bool_)

    @abstractmethod
    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Choose K of the candidates, which are at least K."""

    def how(self, order: str, by: str) -> str:
        """What decides, in words: ``by lowest confidence``."""
        return f"by {order} {by}"


def best_first(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys that keep the highest scores."""
    return -scores + 0.0  # -0.0 ties with 0.0


def finite_rows(vectors: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the vectors [N, D] without NaN or infinity: bool [N]."""
    with np.errstate(invalid="ignore"):  # of infinity - infinity
        # A sum of float32 numbers cannot overflow in float64.
        finite: NDArray[np.bool_] = np.isfinite(vectors.sum(1, dtype=np.float64))
    return finite
