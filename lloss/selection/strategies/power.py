"""The strategy ``power``: draws in proportion to the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.selection.hashing import draw_exponentials
from lloss.selection.strategies.strategy import Candidates, Picks, Strategy


class Power(Strategy):
    """Draw K images one after another, each in proportion to its weight among those left.

    Stochastic Batch Acquisition (Kirsch et al. 2021, https://arxiv.org/abs/2106.12059) takes the
    largest ``log w + Gumbel``. The Gumbel variable is ``-log`` of an exponential one, so that is
    the smallest ``exponential / w``, which needs one pass and memory for K rows.
    """

    name = "power"
    title = "K at random, higher scores more likely"
    weighted = True

    def keys(self, ids: pa.Array, scores: NDArray[np.float64], seed: int) -> NDArray[Any]:
        """Draw an exponential variable for each id, and divide it by the weight."""
        return draw_exponentials(ids, seed) / scores

    def choose(self, candidates: Candidates, k: int) -> Picks:
        """Take the first K."""
        scores = candidates.columns["score"][:k].tolist()
        return Picks(np.arange(k), [f"drawn; {candidates.by} {score:.3g}" for score in scores])

    def how(self, order: str, by: str) -> str:
        """Chance and the scores."""
        return f"at random weighted {super().how(order, by)}"
