"""What a cycle chooses by: loss or entropy; coverage or chance where neither is trusted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from lloss.selection.strategies import get_strategy
from lloss.statistics.confidence_intervals import (
    Clusters,
    Floats,
    Interval,
    in_percent,
    range_in_percent,
    usable,
)
from lloss.statistics.ranking_comparison import compare_rankings
from lloss.statistics.ranking_metrics import accuracy_interval, ranking_figures

AUTO = "auto"
COVERAGE, RANDOM = "coverage", "random"
"""The strategies that need no score: herding without weights, and chance."""

GATE = 0.9
"""Confidence of the interval of which the lower end decides whether a score ranks at all."""

LEAST_PICKS = 20
"""Labeled picks, at least, of which the mean loss says anything."""

ROUNDS = 2
"""The last cycles whose picks say whether weights pay: after as many without, they are tried."""

Round = tuple[float, int]
"""The lift of a cycle's picks, and how many of them it is of."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How well a score orders images by their true loss.

    Attributes:
        accuracy: share of pairs ordered right, 0 to 1; chance is 0.5.
        interval: its 95 % interval.
        low: the lower end of its 90 % interval.
    """

    accuracy: float
    interval: Interval
    low: float

    @property
    def above_chance(self) -> bool:
        """Whether it is shown to rank better than chance."""
        return self.low > 0.5

    def __str__(self) -> str:
        share = in_percent(self.accuracy, self.interval)
        within = range_in_percent(self.interval)
        return f"{share} of pairs{f', 95 % interval {within}' if within else ''}"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of the scores before a selection.

    Attributes:
        labeled: labeled images in all.
        images: those that the rankings were measured on, none of them trained on; 0 for none.
        head: the ranking by predicted loss; None if it was not measured.
        entropy: the ranking by entropy on the same images; None if it was not measured, or the task
            has no entropy of its own.
        advantage: ranking accuracy of entropy less that of the predicted loss, with the paired 95 %
            interval; None if one of the two was not measured.
        lift: mean true loss of the last rounds' picks over that of random images, both under the
            models that picked; None if it is not known.
        picks: that ``lift`` is of.
        least: labeled images below which nothing is trusted to be better than random images,
            whatever was measured.
    """

    labeled: int
    images: int = 0
    head: Ranking | None = None
    entropy: Ranking | None = None
    advantage: tuple[float, Interval] | None = None
    lift: float | None = None
    picks: int = 0
    least: int = 0

    @classmethod
    def measured(
        cls,
        labeled: int,
        loss: Floats,
        head: Floats,
        entropy: Floats | None = None,
        folds: Floats | None = None,
        clusters: Clusters = None,
    ) -> Evidence:
        """Measure scores against true losses, each [N], of images that were not trained on.

        ``folds`` are those of :func:`.ranking_figures`, ``clusters`` the images of one scene; leave
        ``entropy`` out for a task that has none of its own.
        """
        advantage = None
        if entropy is not None:
            found = compare_rankings(entropy, head, loss, folds, clusters)
            advantage = found.value, found.interval
        return cls(
            labeled=labeled,
            images=len(loss),
            head=_ranking(head, loss, folds, clusters),
            entropy=None if entropy is None else _ranking(entropy, loss, folds, clusters),
            advantage=advantage,
        )


def recent_lift(rounds: Iterable[Round | None]) -> dict[str, float | int]:
    """Return ``lift`` and ``picks`` of :class:`Evidence`: of the last :data:`ROUNDS` cycles.

    ``rounds`` are the cycles' picks, the last first; None where the picks had no weights, or their
    lift is not known.
    """
    last = [each for each in itertools.islice(rounds, ROUNDS) if each is not None]
    picks = sum(count for _, count in last)
    if not picks:
        return {}
    return {"lift": sum(lift * count for lift, count in last) / picks, "picks": picks}


@dataclass(frozen=True)
class Choice:
    """What a selection is made by.

    Attributes:
        strategy: a name of :data:`.STRATEGIES`.
        by: the column that weights images; "" for none.
        reason: in words, for the user; "" where the settings say it all.
    """

    strategy: str
    by: str
    reason: str


def choose(strategy: str, by: str, evidence: Evidence) -> Choice:
    """Return what the settings ask for, by the evidence where ``by`` is ``auto``.

    ``SettingsError`` for an unknown strategy.
    """
    if not get_strategy(strategy).uses_scores:
        return Choice(strategy, "", "")
    if by != AUTO:
        return Choice(strategy, by, "")
    return automatic_choice(evidence, strategy)


def automatic_choice(evidence: Evidence, strategy: str = "herding") -> Choice:
    """Choose the column that weights images, or coverage where no weight is to be trusted.

    Images are drawn at random below the least number of labels. Coverage is chosen where nothing
    was measured, where neither score is shown to order pairs better than chance (lower end of the
    90 % interval at most one half), and where the picks of the last rounds had no more loss than
    random images. Otherwise the predicted loss decides, unless it is not shown to rank and entropy
    is, or entropy ranks clearly better (the paired interval of the difference above zero).

    Args:
        evidence: on images that were not trained on.
        strategy: the weighted one to use where weights can be trusted.
    """
    head, entropy = evidence.head, evidence.entropy
    if evidence.labeled < evidence.least:
        return Choice(RANDOM, "", _too_few(evidence))
    if head is None and entropy is None:
        return Choice(COVERAGE, "", _unmeasured(evidence))
    if evidence.lift is not None and evidence.picks >= LEAST_PICKS and evidence.lift <= 1:
        return Choice(
            COVERAGE,
            "",
            f"the last {evidence.picks} picks had no more loss than random images (lift "
            f"{evidence.lift:.2f})",
        )
    by_loss = head is not None and head.above_chance
    if entropy is not None and entropy.above_chance:
        if not by_loss:
            return Choice(
                strategy,
                "entropy",
                f"entropy orders {entropy}; the predicted loss is not shown to rank ({head})",
            )
        if (gain := evidence.advantage) and usable(gain[1]) and gain[1][0] > 0:
            low, high = (f"{100 * end:.1f}" for end in gain[1])
            return Choice(
                strategy,
                "entropy",
                f"entropy orders {100 * gain[0]:.1f} points more of the pairs right than the "
                f"predicted loss (95 % interval {low} to {high})",
            )
    if by_loss:
        beside = "" if entropy is None else f"; entropy is not clearly better ({entropy})"
        return Choice(strategy, "loss", f"the predicted loss orders {head}{beside}")
    also = "" if entropy is None else f", nor is entropy ({entropy})"
    return Choice(
        COVERAGE,
        "",
        f"the predicted loss is not shown to rank better than chance ({head}){also}",
    )


def _ranking(
    score: Floats, loss: Floats, folds: Floats | None, clusters: Clusters
) -> Ranking | None:
    accuracy = ranking_figures(score, loss, folds=folds).ranking_accuracy if len(loss) else math.nan
    if math.isnan(accuracy):
        return None
    low, _ = accuracy_interval(score, loss, folds, GATE, clusters)
    interval = accuracy_interval(score, loss, folds, clusters=clusters)
    return Ranking(accuracy=accuracy, interval=interval, low=low)


def _too_few(evidence: Evidence) -> str:
    return (
        f"with fewer than {evidence.least:,} labels (there are {evidence.labeled}) no other choice "
        "has taught this task more in measurements; to choose by loss anyway, set by = 'loss'"
    )


def _unmeasured(evidence: Evidence) -> str:
    if evidence.images:
        return f"all {evidence.images} measured images have the same loss, which ranks nothing"
    return (
        "it is not measured yet whether the predicted loss or entropy ranks images "
        f"({evidence.labeled} labels, none held out)"
    )
