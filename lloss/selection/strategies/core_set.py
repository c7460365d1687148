"""The strategies ``core-set`` and ``random-k-center``: k-center without scores.

Sener & Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
https://arxiv.org/abs/1708.00489: the greedy algorithm, without the authors' improvement of it by a
mixed integer program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.selection.kcenter import k_center, spreadable
from lloss.selection.strategies.random_rows import RandomRows
from lloss.selection.strategies.strategy import EMBEDDING, Candidates, Picks

CANDIDATES = 4
"""``random-k-center`` spreads K images over 4K random ones."""


class CoreSet(RandomRows):
    """Pick the image farthest from all labeled images and picks, K times."""

    name = "core-set"
    title = "core-set: K images far from labeled ones and each other"
    vectors = (EMBEDDING,)
    labeled = True

    def usable(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Mark the embeddings that distances can be measured to."""
        return spreadable(columns[EMBEDDING])

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Pick by k-center greedy."""
        labeled = candidates.labeled.get(EMBEDDING)
        rows = k_center(candidates.columns[EMBEDDING], k, labeled)
        return Picks(rows, ["unlike labeled images and the picks before it"] * k)


class RandomKCenter(CoreSet):
    """Spread K picks over 4K random images, as ``diverse`` does over the best.

    A control: it has the spread of ``diverse`` without its scores.
    """

    name = "random-k-center"
    title = "K unlike images of 4·K random ones"
    labeled = False

    def limit(self, k: int) -> int | None:
        """Keep 4K."""
        return CANDIDATES * k

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Pick by k-center greedy."""
        rows = k_center(candidates.columns[EMBEDDING], k)
        return Picks(rows, ["drawn at random", *["unlike the picks before it"] * (k - 1)])
