"""The K best scores."""

from __future__ import annotations

import pyarrow as pa

from lloss.scores.score_source import ScoreSource
from lloss.selection.strategies.strategy import Strategy


class Top(Strategy):
    """Take the K best scores."""

    def choose(
        self, source: ScoreSource, candidates: pa.Table, k: int, at_most: bool
    ) -> tuple[pa.Table, int]:
        """See :class:`.Strategy`."""
        return candidates.slice(0, k), 0
