"""What measured figures allow to be said: in the terminal, in the report, in ``summary.json``.

Figures are those of ``evaluation.json``, see :meth:`.Evaluation.as_dict`; files of
earlier versions have no intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.selection import Selection
from lloss.selection.strategies.diverse import CANDIDATES
from lloss.statistics.confidence_intervals import (
    Interval,
    in_percent,
    in_words,
    range_in_percent,
    usable,
)

FEW = 30
"""Fewer held-out images than this are called too few whatever they gave."""

WIDE = 0.3
"""So is what leaves the metric an interval wider than this."""

ENOUGH = 100
"""Held-out images that place a share within about 0.1 of the truth (Wilson's interval)."""


def interval_of(figures: Mapping[str, Any], *path: str) -> Interval | None:
    """The interval of a figure, if it has one: ``"accuracy"``, or ``"head", "lift"``."""
    found: Any = figures.get("intervals") or {}
    for name in path:
        found = found.get(name) or {}
    return (found[0], found[1]) if found and usable(found) else None


def cautions(figures: Mapping[str, Any], metric: str) -> list[str]:
    """Why not to rely on the figures, a line each; none where nothing speaks against them."""
    found, images, interval = [], figures["images"], interval_of(figures, metric)
    if images < FEW or (interval and interval[1] - interval[0] > WIDE):
        within = f": {metric} may be anything from {range_in_percent(interval)}" if interval else ""
        found.append(
            f"{images} held-out images are too few to measure on{within}; "
            f"hold out {ENOUGH} or more (more labels, a larger holdout, or a test set)"
        )
    head = figures.get("head")
    if not head:
        return found
    if head["ranking_accuracy"] is None:
        found.append(
            "all held-out images have the same loss: how well the predicted loss ranks them cannot "
            "be measured"
        )
    elif head["spearman"] is None:
        found.append(
            f"all {images - figures['unseen']} predicted losses of the held-out images are equal: "
            "they rank nothing; train longer, or on more labels"
        )
    elif ranked(figures) is False:
        says = "is not shown to" if head["ranking_accuracy"] > 0.5 else "does not"
        found.append(f"the predicted loss {says} rank better than chance: {_orders(figures)}")
    return found


def _orders(figures: Mapping[str, Any]) -> str:
    interval = interval_of(figures, "head", "ranking_accuracy")
    within = f"95 % interval {range_in_percent(interval)}, " if interval else ""
    share = in_percent(figures["head"]["ranking_accuracy"], interval)
    return f"it orders {share} of the pairs of held-out images right ({within}chance 50%)"


def ranked(figures: Mapping[str, Any] | None) -> bool | None:
    """Whether the predicted loss orders held-out images better than chance.

    None where that was not measured; False also if they are too few to know.
    """
    if not figures or not figures.get("head"):
        return None
    interval = interval_of(figures, "head", "ranking_accuracy")
    if interval is None:
        return None if "intervals" not in figures else False
    return bool(figures["head"]["ranking_accuracy"] is not None and interval[0] > 0.5)


def measured(figures: Mapping[str, Any], metric: str) -> str:
    """The metric, and how the head ranks, in a line for the terminal."""
    unseen = f" ({figures['unseen']} of unknown classes)" if figures["unseen"] else ""
    value = in_words(figures[metric], interval_of(figures, metric), figures["images"])
    entropy = interval_of(figures, "entropy", "ranking_accuracy")
    head = interval_of(figures, "head", "ranking_accuracy")
    within = f", 95 % interval {range_in_percent(head)}" if head else ""
    also = f", {range_in_percent(entropy)}" if entropy else ""
    return (
        f"{metric} {value}{unseen}; the head orders "
        f"{in_percent(figures['head']['ranking_accuracy'], head)} of pairs right{within} "
        f"(entropy {in_percent(figures['entropy']['ranking_accuracy'], entropy)}{also}; chance 50%)"
    )


def ties(losses: NDArray[np.floating], selection: Selection) -> str:
    """What to say where most picks have a predicted loss that more images have than are taken.

    Args:
        losses: predicted, of all images that were scored; may hold NaN.
        selection: from them, by it.

    Returns:
        "" where the losses decided.
    """
    known, scores = losses[np.isfinite(losses)], selection.scores
    if len(scores) < 2:
        return ""
    if len(known) > 1 and known.min() == known.max():
        return f"all {len(known):,} predicted losses are equal"
    k, diverse = selection.settings.k, selection.settings.strategy == "diverse"
    if diverse and selection.settings.subset:
        return ""  # the sub-pool's losses are not known here
    among = min(CANDIDATES * k if diverse else len(scores), len(known))
    # The loss of the last that is taken: of those that have it the order of ids takes some.
    last = np.sort(known)[len(known) - among] if diverse else scores.min()
    picked, same = int((scores == last).sum()), int((known == last).sum())
    # Of a sub-pool's picks nothing is known but how many they are.
    taken = among - int((known > last).sum()) if diverse else picked
    if same <= taken or 2 * picked <= len(scores):
        return ""
    some = "all" if picked == len(scores) else f"{picked:,} of {len(scores):,}"
    taken_as = "are candidates" if diverse else "are taken"
    return (
        f"{same:,} images have the same predicted loss as {some} picks, more than the {taken:,} "
        f"that {taken_as}"
    )


def how_picked(selection: Selection, tied: str, better: bool | None) -> str:
    """One plain sentence on how the picks were chosen.

    Args:
        selection: the picks.
        tied: see :func:`ties`.
        better: see :func:`ranked`.
    """
    settings = selection.settings
    among = f" of a random {settings.subset:g} images" if settings.subset >= 1 else ""
    among = among or (f" of a random {settings.subset:.0%}" if settings.subset else "")
    spread = settings.strategy == "diverse"
    if tied:
        also = " and spread by k-center greedy" if spread else ""
        return f"Picked in the order of ids{among}{also}: {tied}, so this is not a ranking."
    candidates = min(CANDIDATES * settings.k, selection.eligible)
    how = (
        f"Spread by k-center greedy over the {candidates:,} highest predicted losses"
        f"{among}, in the order picked"
        if spread
        else f"The highest predicted losses{among}"
    )
    if better is False:
        return f"{how}. They are not shown to rank images better than chance."
    return f"{how}."
