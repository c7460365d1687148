"""What a strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pyarrow as pa

from lloss.scores.score_source import ScoreSource


class Strategy(ABC):
    """Chooses K images among candidates, which :func:`lloss.selection.select` finds.

    Attributes:
        by_score: whether the candidates are the images of the best scores; otherwise they are
            drawn at random (see :mod:`lloss.selection.hashing`).
    """

    by_score: ClassVar[bool] = True

    def candidates(self, k: int) -> int:
        """How many candidates to find."""
        return k

    @abstractmethod
    def choose(
        self, source: ScoreSource, candidates: pa.Table, k: int, at_most: bool
    ) -> tuple[pa.Table, int]:
        """Choose K candidates, or all where there are fewer.

        Args:
            source: of further columns.
            candidates: ``id`` and ``score``, best first.
            k: how many to choose.
            at_most: whether fewer than K will do where some candidates cannot be used.

        Returns:
            The chosen rows, in the order to label them, and how many candidates cannot be used.

        Raises:
            SelectionError: too few can be used.
        """
