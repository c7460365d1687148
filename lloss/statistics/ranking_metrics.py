"""How well predicted losses order images by their true ones. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.confidence_intervals import Floats, Interval, Resampled, bootstrap, wilson

_ROWS = 2048


@dataclass(frozen=True, slots=True)
class RankingFigures:
    """A score held against the true loss on N images."""

    # Share of pairs of unequal loss that the score orders right, a tie of scores counting half;
    # chance is .5
    ranking_accuracy: float
    spearman: float  # rank correlation, -1 to 1, ties by their mean rank
    # Mean true loss of the tenth with the highest scores over the mean of all; where the score
    # ties, the mean over all orders of what ties, so that a constant score has 1
    lift: float


def ranking_figures(score: Floats, loss: Floats, share: float = 0.1) -> RankingFigures:
    """Compare ``score`` [N] with the true ``loss`` [N]; NaN where a figure is undefined."""
    ordered, pairs = pair_counts(score, loss)
    return RankingFigures(
        ordered / pairs if pairs else float("nan"),
        spearman(score, loss),
        float(_lifts(score, loss, share)(np.ones((1, len(loss))))["lift"][0]),
    )


def ranking_intervals(score: Floats, loss: Floats, share: float = 0.1) -> dict[str, Interval]:
    """The 95 % intervals of ranking accuracy and lift, by name."""
    return {
        "ranking_accuracy": _accuracy_interval(score, loss),
        **bootstrap(len(loss), _lifts(score, loss, share)),
    }


def _lifts(score: Floats, loss: Floats, share: float) -> Resampled:
    """Top lift of images drawn by weights.

    Where the score ties, it is the mean over all orders of what ties: from a group of equal scores
    that is taken in part, the group's mean loss is taken.
    """
    # By loss as well, so that sums do not depend on the order of the rows.
    order = np.lexsort((np.asarray(loss), -np.asarray(score)))
    scores, losses = np.asarray(score)[order], np.asarray(loss, np.float64)[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    top = max(1, round(len(losses) * share))

    def lifts(weights: Floats) -> dict[str, Floats]:
        images = np.add.reduceat(weights, starts, 1)
        sums = np.add.reduceat(weights * losses, starts, 1)
        taken = (top - (images.cumsum(1) - images)).clip(0, images)
        of_group = np.divide(sums, images, out=np.zeros_like(sums), where=images > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            lift = (taken * of_group).sum(1) / top / (sums.sum(1) / len(losses))
        return {"lift": np.where(np.isfinite(lift), lift, np.nan)}

    return lifts


def _accuracy_interval(score: Floats, loss: Floats) -> Interval:
    """Wilson's interval on so many independent pairs as make the variance that chance has.

    It holds 50 % exactly where Kendall's test does not refuse chance.
    """
    right, pairs = pair_counts(score, loss)
    if not pairs:
        return 0.0, 1.0
    chance = _kendall_variance(score, loss) / (4 * pairs**2)
    if not chance:
        return right / pairs, right / pairs
    return wilson(right / pairs * 0.25 / chance, 0.25 / chance)


def _kendall_variance(a: Floats, b: Floats) -> float:
    """Variance of concordant less discordant pairs under chance, ties as they are.

    Kendall 1970, "Rank Correlation Methods", chapter 4.
    """
    n = len(a)
    t, u = (np.unique(np.asarray(x), return_counts=True)[1].astype(np.float64) for x in (a, b))

    def cubes(c: Floats) -> float:
        return float((c * (c - 1) * (2 * c + 5)).sum())

    variance = (n * (n - 1) * (2 * n + 5) - cubes(t) - cubes(u)) / 18
    if n > 1:
        twos = float((t * (t - 1)).sum()) * float((u * (u - 1)).sum())
        variance += twos / (2 * n * (n - 1))
    if n > 2:
        threes = float((t * (t - 1) * (t - 2)).sum()) * float((u * (u - 1) * (u - 2)).sum())
        variance += threes / (9 * n * (n - 1) * (n - 2))
    return max(variance, 0.0)


def pair_counts(score: Floats, loss: Floats) -> tuple[float, int]:
    """Count pairs ordered right (ties of scores as halves), and pairs of unequal loss at all."""
    s, l = np.asarray(score), np.asarray(loss)
    right, pairs = 0.0, 0
    for start in range(0, len(s), _ROWS):
        rows = slice(start, start + _ROWS)
        larger = l[rows, None] > l[None, :]
        pairs += int(np.count_nonzero(larger))
        # In halves: 2 where the score orders the pair as the loss does, 1 where it ties.
        halves = larger * ((s[rows, None] > s).astype(np.int8) + (s[rows, None] >= s))
        right += float(halves.sum()) / 2
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
