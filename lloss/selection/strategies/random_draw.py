"""The strategy ``random``: K images drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.selection.hashing import draw_hashes
from lloss.selection.strategies.strategy import Candidates, Picks, Strategy


class RandomDraw(Strategy):
    """Draw K images by a hash of the id and the seed."""

    name = "random"
    title = "any K"
    uses_scores = False

    def keys(self, ids: pa.Array, scores: NDArray[np.float64], seed: int) -> NDArray[Any]:
        """Draw a number for each id."""
        return draw_hashes(ids, seed)

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Take the K smallest numbers."""
        return Picks(np.arange(k), ["drawn at random"] * k)

    def how(self, order: str, by: str) -> str:
        """Nothing but chance."""
        return "at random"
