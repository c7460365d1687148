"""The summary of a complete cycle: ``cycles/NNN/summary.json``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lloss.errors import ProjectError
from lloss.statistics.confidence_intervals import Interval
from lloss.training.cautions import interval_of

SUMMARY = "summary.json"


class Measured(NamedTuple):
    """A share between 0 and 1 with its 95 % interval; each is None if it was not measured."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Summary:
    """A complete cycle."""

    cycle: int
    labeled: int
    selected: int
    scored: int
    skipped: int
    classes: dict[str, int]
    labels_sha256: str
    evaluation: dict[str, Any] | None
    metric_name: str
    left_out: int = 0  # broken annotations and labeled images that were not used
    held_back: int = 0  # labels kept for measuring
    precision: str = "fp32"  # of the network that scored
    # The settings of the training, with what was decided for these labels
    training: dict[str, Any] = field(default_factory=dict)
    # Whether the predicted loss ranks images better than chance; None if not measured
    ranked: bool | None = None
    # What training measured on the labeled images: as `Evaluation.as_dict`; of a frozen network
    # `FrozenFit.figures`
    cross_validation: dict[str, Any] | None = None
    # What the images were chosen by, as `Choice`; None of versions that had no choice
    choice: dict[str, str] | None = None
    trust: dict[str, Any] = field(default_factory=dict)  # `TrustFigures.as_dict`
    trust_lines: list[str] = field(default_factory=list)  # the same in words
    warnings: list[str] = field(default_factory=list)  # why not to rely on figures or selection
    notes: list[str] = field(default_factory=list)  # the warnings, and what else to know

    @property
    def held_out(self) -> int:
        """Images that the figures were measured on."""
        return int(self.evaluation["images"]) if self.evaluation else 0

    @property
    def measured_on(self) -> int:
        """Images that the metric is of, held out or by cross-validation; 0 if it is of none."""
        if self.metric.value is None:
            return self.held_out
        figures = self.evaluation or self.cross_validation or {}
        return int(figures.get("metric_images", figures["images"]))

    @property
    def metric(self) -> Measured:
        """The task's metric: on held-out images, or without any by cross-validation."""
        figures = self.evaluation or self.cross_validation or {}
        return Measured(figures.get(self.metric_name), interval_of(figures, self.metric_name))

    @property
    def ranking(self) -> dict[str, Any] | None:
        """The figures of how scores rank: those of the most images."""
        return ranking_of(self.evaluation, self.cross_validation)

    @property
    def lift(self) -> Measured:
        """Mean true loss of the picks of the cycle before, over that of random images."""
        found = self.trust.get("payoff") or {}
        interval = found.get("interval")
        return Measured(found.get("lift"), tuple(interval) if interval else None)

    @property
    def agreement(self) -> float | None:
        """Share of the predictions on unlabeled images that are those of the cycle before."""
        share: float | None = (self.trust.get("agreement") or {}).get("share")
        return share

    def ranking_accuracy(self, by: str) -> Measured:
        """How well images are ranked by the predicted loss (``head``) or by ``entropy``."""
        figures = self.ranking or {}
        value = (figures.get(by) or {}).get("ranking_accuracy")
        return Measured(value, interval_of(figures, by, "ranking_accuracy"))


def ranking_of(
    evaluation: dict[str, Any] | None, cross_validation: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Return the figures of the most images, of a hold-out where both have as many."""
    measured = [each for each in (evaluation, cross_validation) if each]
    return max(measured, key=lambda each: int(each["images"]), default=None)


def read_summary(path: Path) -> Summary:
    """Read a cycle's ``summary.json``; ``ProjectError`` where it is damaged."""
    try:
        return Summary(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ProjectError(f"{path}: is damaged; remove the cycle to run it again") from error


def read_summaries(cycles: Path) -> list[Summary]:
    """Return the complete cycles of a project's ``cycles`` folder, in order.

    Raises:
        ProjectError: a summary is damaged, or a cycle is missing before others.
    """
    summaries: list[Summary] = []
    while (path := cycles / f"{len(summaries) + 1:03d}" / SUMMARY).exists():
        summaries.append(read_summary(path))
    last = max((p.name for p in cycles.glob("*") if re.fullmatch(r"\d{3,}", p.name)), default="0")
    if int(last) > len(summaries) + 1:
        raise ProjectError(
            f"{cycles}: cycle {len(summaries) + 1:03d} is not complete, but cycle {last} exists; "
            "restore it, or remove the later ones"
        )
    return summaries
