"""How well predicted losses order images by their true ones. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

_ROWS = 2048


@dataclass(frozen=True, slots=True)
class RankingFigures:
    """A score held against the true loss on N images.

    Attributes:
        ranking_accuracy: share of pairs of unequal loss that the score orders right, a tie of
            scores counting half; chance is .5.
        spearman: rank correlation, -1 to 1, ties by their mean rank.
        lift: mean true loss of the tenth with the highest scores over the mean of all.
    """

    ranking_accuracy: float
    spearman: float
    lift: float


def ranking_figures(score: Floats, loss: Floats, share: float = 0.1) -> RankingFigures:
    """Compare ``score`` [N] with the true ``loss`` [N]; NaN where a figure is undefined."""
    ordered, pairs = pair_counts(score, loss)
    top = max(1, round(len(loss) * share))
    best = np.argsort(-np.asarray(score), kind="stable")[:top]
    mean = float(np.mean(loss))
    return RankingFigures(
        ordered / pairs if pairs else float("nan"),
        spearman(score, loss),
        float(np.mean(np.asarray(loss)[best])) / mean if mean else float("nan"),
    )


def pair_counts(score: Floats, loss: Floats) -> tuple[float, int]:
    """Count pairs ordered right (ties of scores as halves), and pairs of unequal loss at all."""
    s, l = np.asarray(score), np.asarray(loss)
    right, pairs = 0.0, 0
    for start in range(0, len(s), _ROWS):
        rows = slice(start, start + _ROWS)
        larger = l[rows, None] > l[None, :]
        pairs += int(np.count_nonzero(larger))
        right += int(np.count_nonzero(larger & (s[rows, None] > s[None, :])))
        right += int(np.count_nonzero(larger & (s[rows, None] == s[None, :]))) / 2
    return right, pairs


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; NaN when one side is constant."""
    ra, rb = ranks(a), ranks(b)
    ra, rb = ra - ra.mean(), rb - rb.mean()
    norm = float(np.sqrt((ra**2).sum() * (rb**2).sum()))
    return float((ra * rb).sum()) / norm if norm else float("nan")


def ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks from 1, ties sharing their mean rank: float64 [N]."""
    values = np.asarray(values)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean = last - (counts - 1) / 2
    return np.asarray(mean[inverse], np.float64)
