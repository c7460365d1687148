"""The strategy ``diverse``: k-center greedy on the embeddings of the best scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.selection.kcenter import k_center, spreadable
from lloss.selection.strategies.strategy import EMBEDDING, Candidates, Picks, Strategy

CANDIDATES = 4
"""K images are spread over the best 4K."""


class Diverse(Strategy):
    """Spread K picks over the 4K best scores, the first pick being the best score.

    Sener & Savarese 2018, https://arxiv.org/abs/1708.00489, over the best scores alone.
    """

    name = "diverse"
    title = "K unlike images of the 4·K best"
    vectors = (EMBEDDING,)

    def limit(self, k: int) -> int | None:
        """Keep 4K."""
        return CANDIDATES * k

    def usable(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Mark the embeddings that distances can be measured to."""
        return spreadable(columns[EMBEDDING])

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Pick by k-center greedy."""
        rows = k_center(candidates.columns[EMBEDDING], k)
        first = f"{candidates.order} {candidates.by}"
        return Picks(rows, [first, *["unlike the picks before it"] * (k - 1)])
