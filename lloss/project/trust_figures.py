"""Whether to go on as before: did the picks pay, do predictions still change, what is to come."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lloss.errors import LlossError
from lloss.manifest import class_name, read_manifest
from lloss.project.cycle_model import MODEL
from lloss.project.pick_payoff import Payoff
from lloss.project.summary import Summary
from lloss.scores.score_source import ids_of
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection
from lloss.selection.hashing import draw_hash
from lloss.statistics.confidence_intervals import in_points
from lloss.statistics.learning_curve import CurvePoint, ExpectedGain, expected_gain
from lloss.text.counts import counted, part

COMPARED = 10_000
"""Images at most that two cycles' predictions are compared on."""

LEAST = 50  # Fewer place a share by no better than 0.14

SETTLED, CYCLES = 0.99, 3
"""Labels change little where kappa is at least so high in so many cycles in a row (Bloodgood and
Vijay-Shanker 2009, "A Method for Stopping Active Learning Based on Stabilizing Predictions")."""

VAGUE = 0.2
"""An expected gain with a wider interval says nothing."""

SMALL_GAIN = 0.005
"""Where even the upper end of the expected gain is below this, labeling more hardly pays."""


@dataclass(frozen=True)
class Agreement:
    """Predictions of two successive models on images that are still unlabeled."""

    images: int
    share: float  # of equal classes
    kappa: float

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of the predictions on {self.images:,} unlabeled images are those of "
            f"the cycle before (kappa {self.kappa:.2f})"
        )


@dataclass(frozen=True, kw_only=True)
class TrustFigures:
    """Figures of one cycle; each is None where it could not be measured.

    Attributes:
        payoff: of the picks of the cycle before.
        agreement: of this cycle's predictions with those before.
        gain: of the metric, by as many labels as the cycle selects.
        duplicates: images passed over as near-duplicates.
        distance: below which two images are near-duplicates.
        monitored: picks that were drawn at random.
    """

    payoff: Payoff | None = None
    agreement: Agreement | None = None
    gain: ExpectedGain | None = None
    duplicates: int = 0
    distance: float = 0.0
    monitored: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For ``summary.json``."""
        return asdict(self)


def compare_predictions(
    folder: Path, before: Path, without: Collection[str] = ()
) -> Agreement | None:
    """Compare the classes that two cycles' scores have for the same images.

    ``without`` are ids to leave out, such as labeled ones. None for a task without one class for
    each image, for too few images, or where files of the cycle before are gone. Of more than
    :data:`COMPARED` images those with the smallest hashes of their ids are compared.
    """
    try:
        now, then = (ScoresFolder(each / "scores") for each in (folder, before))
        if not {"prediction"} <= {*now.columns()} & {*then.columns()}:
            return None
        classes, known = (read_manifest(each / MODEL).classes for each in (folder, before))
        ids = _sample(now, frozenset(without))
        one = _predictions(now, ids, classes)
        other = _predictions(then, ids, known)
    except (OSError, LlossError):
        return None
    common = sorted(one.keys() & other.keys())
    if len(common) < LEAST:
        return None
    a, b = ([found[id] for id in common] for found in (one, other))
    same = sum(x == y for x, y in zip(a, b)) / len(common)
    return Agreement(len(common), same, cohen_kappa(a, b))


def _sample(scores: ScoresFolder, without: frozenset[str]) -> list[str]:
    ids = ids_of(scores)
    drawn = ((draw_hash(id, 0), id) for id in ids if id not in without)
    return [id for _, id in heapq.nsmallest(COMPARED, drawn)]


def _predictions(
    scores: ScoresFolder, ids: Sequence[str], classes: Sequence[str]
) -> dict[str, str]:
    rows = (row for batch in scores.scan(["id", "prediction"], ids) for row in batch.to_pylist())
    return {row["id"]: class_name(classes, row["prediction"]) for row in rows}


def gain_of(cycles: Sequence[Summary], k: int) -> ExpectedGain | None:
    """Expect what K more labels add to the metric, by all cycles; None for too few or too vague."""
    points = [
        CurvePoint(each.labeled, each.metric.value, each.metric.interval)
        for each in cycles
        if each.evaluation
        and each.metric.value is not None
        and each.metric_name == cycles[-1].metric_name
    ]
    # A cross-validation is of the labels of its cycle, which no other cycle is measured on
    if not points or not cycles[-1].evaluation or cycles[-1].metric.value is None:
        return None
    found = expected_gain(points, k)
    return found if found and found.interval[1] - found.interval[0] <= VAGUE else None


def settled(cycles: Sequence[Summary], now: Agreement | None) -> bool:
    """Whether predictions have stopped changing; ``cycles`` are those before this one."""
    if now is None:
        return False
    kappas = [(each.trust.get("agreement") or {}).get("kappa") for each in cycles]
    last = [*kappas, now.kappa][-CYCLES:]
    return len(last) == CYCLES and all(k is not None and k >= SETTLED for k in last)


def remarks_on(selection: Selection, classes: Sequence[str] = ()) -> list[str]:
    """Say in a line what the selection left out or divided; no line where it did not.

    ``classes`` are the model's: groups of predictions are numbers in scores.
    """
    remarks = selection.with_class_names(classes).remarks()
    return [f"{counted(len(selection), 'image')} selected, {', '.join(remarks)}"] if remarks else []


def trust_lines(figures: TrustFigures, cycles: Sequence[Summary]) -> list[str]:
    """Say the figures of the last cycle in lines, for the terminal and the report."""
    *before, now = cycles
    lines = [str(each) for each in (figures.payoff, figures.agreement) if each]
    if settled(before, figures.agreement):
        lines.append(
            f"kappa was {SETTLED} or more in {CYCLES} cycles: more labels change predictions little"
        )
    if gain := figures.gain:
        lines.append(_gain_in_words(gain, now.metric_name, len(cycles)))
        if gain.interval[1] < SMALL_GAIN:
            lines.append(
                f"that is less than {100 * SMALL_GAIN:g} points: labeling more hardly pays"
            )
    if figures.monitored:
        lines.append(
            f"{part(figures.monitored, now.selected, 'picks', 'are')} drawn at random, to see what "
            "random labels show"
        )
    return lines


def _gain_in_words(gain: ExpectedGain, metric: str, cycles: int) -> str:
    points, low, high = map(in_points, (gain.gain, *gain.interval))
    return (
        f"{gain.labels} more labels are expected to change {metric} by {points} points (95 % "
        f"interval {low} to {high}), by the curve of {cycles} cycles"
    )


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Agreement beyond chance of two classes for each of N images, -1 to 1 (Cohen 1960).

    ``(a - e) / (1 - e)``, where ``a`` is the share of equal classes and ``e`` the share that is
    equal if both give their classes as often, but independently of each other. NaN for no images; 1
    where both give one class to all.
    """
    if not len(one):
        return float("nan")
    _, codes = np.unique(np.array([*one, *other], dtype=object).astype(str), return_inverse=True)
    first, second = codes[: len(one)], codes[len(one) :]
    agreed = int(np.count_nonzero(first == second))
    counts = [np.bincount(c, minlength=codes.max() + 1) for c in (first, second)]
    # Times N², in whole numbers: that all agree by chance is exactly that.
    chance, total = int(counts[0].astype(object) @ counts[1].astype(object)), len(one) ** 2
    return 1.0 if chance == total else (agreed * len(one) - chance) / (total - chance)
