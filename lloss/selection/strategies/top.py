"""The strategy ``top``: the K best scores."""

from __future__ import annotations

import numpy as np

from lloss.selection.strategies.strategy import Candidates, Picks, Strategy


class Top(Strategy):
    """Take the K best scores."""

    name = "top"
    title = "the K best scores"

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Take the first K."""
        return Picks(np.arange(k), [f"{candidates.order} {candidates.by}"] * k)
