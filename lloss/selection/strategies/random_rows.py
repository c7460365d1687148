"""Strategies that compare all images with each other, of a large pool a random part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.selection.hashing import draw_hashes
from lloss.selection.strategies.strategy import Strategy

MOST_ROWS = 20_000


class RandomRows(Strategy):
    """Choose from at most 20,000 images, or 4K if these are more, drawn by a hash of their ids."""

    uses_scores = False

    def limit(self, k: int) -> int | None:
        """Keep 20,000, or 4K."""
        return max(MOST_ROWS, 4 * k)

    def keys(self, ids: pa.Array, scores: NDArray[np.float64], seed: int) -> NDArray[Any]:
        """Draw a number for each id."""
        return draw_hashes(ids, seed)

    def how(self, order: str, by: str) -> str:
        """Likeness alone."""
        return "by likeness"
