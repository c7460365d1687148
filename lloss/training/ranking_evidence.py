"""What figures on images that were not trained on say about a choice by loss or entropy.

Figures are those of ``evaluation.json`` and ``cross_validation.json``, see
:meth:`.Evaluation.as_dict` and :meth:`.FrozenFit.figures`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lloss.selection.automatic import Evidence, Ranking
from lloss.statistics.confidence_intervals import Clusters, Floats
from lloss.training.cautions import APART, interval_of

CROSS_VALIDATION = "cross_validation.json"
"""File name of figures on the labeled images themselves, in a run's folder."""


def comparison(
    loss: Floats,
    head: Floats | None,
    entropy: Floats | None,
    folds: Floats | None = None,
    clusters: Clusters = None,
) -> dict[str, Any]:
    """Compare two scores, each [N], by how they rank images of a true loss.

    Returns the lower ends of the 90 % intervals of their ranking accuracies, ``head_low`` and
    ``entropy_low``, the 95 % interval of entropy's, and by how much it is above the predicted
    loss's, ``entropy_ahead``, with its paired 95 % interval; None for what was not measured.
    """
    if head is None:
        return {}
    found = Evidence.measured(len(loss), loss, head, entropy, folds, clusters)
    value, interval = found.advantage or (None, None)
    return {
        "head_low": found.head and found.head.low,
        "entropy_low": found.entropy and found.entropy.low,
        "entropy_interval": found.entropy and found.entropy.interval,
        "entropy_ahead": value,
        "entropy_ahead_interval": interval,
    }


def finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {name: finite(x) for name, x in value.items()}
    if isinstance(value, (tuple, list)):
        return [finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_cross_validation(run: Path) -> dict[str, Any] | None:
    """Read what a training measured on its own labeled images; None without any."""
    try:
        text = (run / CROSS_VALIDATION).read_text(encoding="utf-8")
        figures: dict[str, Any] = json.loads(text)
    except (OSError, ValueError):
        return None
    return figures


def evidence_of(
    figures: Mapping[str, Any] | None, labeled: int, has_entropy: bool, **lift: Any
) -> Evidence:
    """Return what figures say; those of earlier versions have 95 % intervals alone.

    Args:
        figures: None for none.
        labeled: labeled images in all.
        has_entropy: whether the task's entropy is one to choose by.
        lift: ``lift`` and ``picks`` of :class:`.Evidence`.
    """
    if not figures or not figures.get("head") or figures.get("apart", APART) < APART:
        return Evidence(labeled=labeled, **lift)
    compared = figures.get("comparison") or {}
    ahead, within = compared.get("entropy_ahead"), compared.get("entropy_ahead_interval")
    advantage = None
    if has_entropy and ahead is not None and within and None not in within:
        advantage = float(ahead), (float(within[0]), float(within[1]))
    return Evidence(
        labeled=labeled,
        images=int(figures["images"]),
        head=_ranking(figures, "head", compared.get("head_low")),
        entropy=_ranking(figures, "entropy", compared.get("entropy_low")) if has_entropy else None,
        advantage=advantage,
        **lift,
    )


def _ranking(figures: Mapping[str, Any], score: str, low: float | None) -> Ranking | None:
    accuracy = (figures.get(score) or {}).get("ranking_accuracy")
    interval = interval_of(figures, score, "ranking_accuracy")
    if accuracy is None or interval is None:
        return None
    return Ranking(accuracy=accuracy, interval=interval, low=interval[0] if low is None else low)
