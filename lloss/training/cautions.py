"""Whether measured figures can be relied on: for the terminal, the report and ``summary.json``.

Figures are those of ``evaluation.json``, see :meth:`.Evaluation.as_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lloss.manifest import PRETRAINED_EMBEDDING
from lloss.selection import Selection
from lloss.selection.strategies import get_strategy
from lloss.selection.strategies.diverse import CANDIDATES
from lloss.statistics.confidence_intervals import (
    Interval,
    in_percent,
    in_words,
    range_in_percent,
    usable,
)
from lloss.text.counts import NEAR, part

FEW = 30  # Fewer held-out images than this are too few whatever the figures
WIDE = 0.3  # So are those that leave the metric a wider interval than this
PLURALS = {"loss": "predicted losses", "entropy": "entropies", "margin": "margins"}

APART = 20  # Fewer groups of near-duplicates show no ranking, however many their images are

MANY = 0.05  # Near-duplicates of training images: fewer change the figures little
ENOUGH = 100  # Held-out images that place a share within about 0.1 of the truth (Wilson's interval)


def interval_of(figures: Mapping[str, Any], *path: str) -> Interval | None:
    """Return the interval of a figure, such as ``"accuracy"``, or ``"head", "lift"``."""
    found: Any = figures.get("intervals") or {}
    for name in path:
        found = found.get(name) or {}
    return (found[0], found[1]) if found and usable(found) else None


def cautions(figures: Mapping[str, Any], metric: str) -> list[str]:
    """Return a line on each reason not to rely on the figures."""
    lines, images, interval = [], figures["images"], interval_of(figures, metric)
    if images < FEW or (interval and interval[1] - interval[0] > WIDE):
        within = f": {metric} may be anything from {range_in_percent(interval)}" if interval else ""
        kind, remedy = "held-out", f"hold out {ENOUGH} or more"
        if figures.get("folds", 1) > 1:
            kind, remedy = "labeled", f"measure on {ENOUGH} or more"
        lines.append(
            f"{images} {kind} images are too few to measure on{within}; {remedy} (more labels, a "
            "larger holdout, or a test set)"
        )
    near, of = figures.get("near_copies", 0), figures.get("near_copies_of", 0)
    if near and near >= MANY * of:
        lines.append(
            f"{part(near, of, 'images to measure on', NEAR)} of images that were trained "
            f"on: on new scenes {metric} is lower than measured"
        )
    if (apart := figures.get("apart", APART)) < APART:
        lines.append(
            f"but for near-duplicates, {images} images to measure on are only {apart}: too few to "
            f"show how well the predicted loss or the entropy ranks; label {APART} scenes or more"
        )
    head = figures.get("head")
    if not head:
        return lines
    if head["ranking_accuracy"] is None or head["spearman"] is None:
        lines.append(
            "all true or all predicted losses of the held-out images are equal: that ranks "
            "nothing; train longer, or on more labels"
        )
    elif ranked(figures) is False:
        says = "is not shown to" if head["ranking_accuracy"] > 0.5 else "does not"
        interval = interval_of(figures, "head", "ranking_accuracy")
        lines.append(
            f"the predicted loss {says} rank better than chance: it orders "
            f"{in_percent(head['ranking_accuracy'], interval)} of the pairs of held-out images "
            f"right (95 % interval {range_in_percent(interval)}, chance 50%)"
        )
    return lines


def ranked(figures: Mapping[str, Any] | None) -> bool | None:
    """Whether the predicted loss is shown to order images better than chance; None: unmeasured.

    By the lower end of the 90 % interval, as :data:`.GATE` has it for the choice of a cycle;
    figures of earlier versions have that of 95 % alone.
    """
    if not figures or not figures.get("head") or figures.get("apart", APART) < APART:
        return None
    interval = interval_of(figures, "head", "ranking_accuracy")
    if figures["head"]["ranking_accuracy"] is None or interval is None:
        return False
    low = (figures.get("comparison") or {}).get("head_low")
    return bool((interval[0] if low is None else low) > 0.5)


def measured(figures: Mapping[str, Any], metric: str) -> str:
    """Return the metric, and how the head ranks, as a line for the terminal."""
    unseen = f" ({figures['unseen']} of unknown classes)" if figures.get("unseen") else ""
    parts, found = [], {}
    if figures.get(metric) is not None:
        count = figures.get("metric_images", figures["images"])
        value = in_words(figures[metric], interval_of(figures, metric), count)
        parts.append(f"{metric} {value}{unseen}")
    for name in ("head", "entropy"):
        accuracy = (figures.get(name) or {}).get("ranking_accuracy")
        if accuracy is not None:
            interval = interval_of(figures, name, "ranking_accuracy")
            found[name] = in_percent(accuracy, interval), range_in_percent(interval)
    if "head" in found:
        entropy = "entropy {}, {}; ".format(*found["entropy"]) if "entropy" in found else ""
        share, within = found["head"]
        parts.append(
            f"the head orders {share} of pairs right, 95 % interval {within} ({entropy}chance 50%)"
        )
    return "; ".join(parts)


def how_picked(selection: Selection, tied: str, better: bool | None) -> str:
    """Say how the picks were chosen; ``tied`` is :func:`.tie_note`, ``better`` :func:`ranked`."""
    settings = selection.settings
    strategy = get_strategy(settings.strategy)
    among = f" of {settings.subset} random images" if settings.subset else ""
    frozen = selection.spread_by == PRETRAINED_EMBEDDING
    features = " on features of the network before training" if frozen else ""
    if tied and not strategy.weighted:
        also = " and spread by k-center greedy" if settings.strategy == "diverse" else ""
        return f"Picked in the order of ids{among}{also}: {tied}."
    scores = f"{settings.direction} {PLURALS.get(settings.by, f'values of {settings.by}')}{among}"
    if settings.strategy == "top":
        how = f"The {scores}."
    elif settings.strategy == "diverse":
        candidates = min(CANDIDATES * settings.k, selection.eligible)
        how = (
            f"Spread by k-center greedy{features} over the {candidates:,} {scores}, in the order "
            "picked."
        )
    else:
        what = strategy.title.replace("K ", f"{len(selection):,} ", 1)
        by = f", by {scores}" if strategy.uses_scores else among
        how = f"{what[:1].upper()}{what[1:]}{features}{by}{f'; but {tied}' if tied else ''}."
    doubts = better is False and strategy.uses_scores and settings.by == "loss"
    return how + (" They are not shown to rank images better than chance." if doubts else "")
