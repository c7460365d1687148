"""The report of a cycle: which images to label next, and how the model is doing.

One self-contained ``report.html`` without scripts; its SVG charts take their colours from the page
and follow its light and dark scheme.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lloss.files import write_text
from lloss.project.summary import Summary
from lloss.statistics.charts import LossHistogram, figure, histogram, lines
from lloss.statistics.confidence_intervals import (
    decimals,
    in_percent,
    in_points,
    range_in_percent,
)
from lloss.statistics.loss_unit import IN_NO_UNIT, LossUnit
from lloss.statistics.report_page import render_page
from lloss.text.markup import loss, text

SHOWN_PICKS = 200  # More would make the page heavy; `selected.csv` lists all

SHOWN_CLASSES = 30


@dataclass(frozen=True)
class Pick:
    """One image to label next."""

    id: str
    rank: int  # from 1
    score: float  # the predicted loss
    guess: str  # name of the predicted class, or ""
    confidence: float  # of the guess, 0 to 1, or NaN
    thumbnail: bytes | None  # PNG or JPEG; None if the image is unreadable
    reason: str = ""  # why it was chosen
    drawn: bool = False  # the thumbnail shows what the model found; it is larger


@dataclass(frozen=True)
class Report:
    """The content of the page."""

    project: str
    task: str
    model: str
    metric: str  # title of the task's metric
    cycles: Sequence[Summary]  # all complete cycles; the last one is the report's
    selected_how: str  # one sentence on how the picks were chosen
    losses: NDArray[np.float32]  # predicted losses of all scored images [pool]; may contain NaN
    picks: Sequence[Pick]  # best first
    provenance: Mapping[str, str]
    counted: str = "Labeled images per class"  # title of the class counts
    unit: LossUnit = IN_NO_UNIT  # of the predicted losses


def write_report(report: Report, path: Path) -> None:
    """Write the page atomically; the same data give the same bytes."""
    filters: dict[str, Callable[..., str]] = {
        "count": "{:,}".format,
        "data_uri": _data_uri,
        "interval": lambda measured: range_in_percent(measured.interval),
        "loss": loss,
        "percent": lambda measured: in_percent(measured.value, measured.interval),
    }
    now, *earlier = reversed(report.cycles)
    classes = sorted(now.classes.items(), key=lambda item: item[1])
    shown = classes[:SHOWN_CLASSES]
    page = render_page(
        __package__,
        filters,
        **vars(report),
        now=now,
        before=earlier[0] if earlier else None,
        change=_change(now, earlier[0]) if earlier else "",
        head=now.ranking_accuracy("head"),
        entropy=now.ranking_accuracy("entropy"),
        histogram=Markup(
            histogram(LossHistogram.of(report.losses), [pick.score for pick in report.picks])
        ),
        curves=Markup(_curves(report.cycles, text(report.metric))),
        trust_charts=Markup(_trust_charts(report.cycles)),
        trusted=any(cycle.trust for cycle in report.cycles),
        notes=[line for line in now.notes if line not in now.warnings],
        classes=classes,
        most=max((count for _, count in shown), default=0) or 1,
        name_width=min(max((len(name) for name, _ in shown), default=0), 16),
        shown_picks=SHOWN_PICKS,
        shown_classes=SHOWN_CLASSES,
    )
    write_text(path, page)


def _data_uri(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(image).decode()}"


def _change(now: Summary, before: Summary) -> str:
    """Describe the change of the metric, and whether it is within the interval."""
    (value, interval), earlier = now.metric, before.metric.value
    if value is None or earlier is None or not (now.evaluation and before.evaluation):
        return ""  # a cross-validation is of the labels of its cycle
    places = max(decimals(interval) - 2, 0) if interval else 1
    change = f"{in_points(value - earlier, places)} points since cycle {before.cycle}"
    within = interval and interval[0] <= earlier <= interval[1]
    return f"{change}, within the interval" if within else change


def _curves(cycles: Sequence[Summary], title: str) -> str:
    alike = [c for c in cycles if bool(c.evaluation) == bool(cycles[-1].evaluation)]
    metric = [(cycle.labeled, cycle.metric) for cycle in alike]
    head, entropy = (
        [(cycle.cycle, cycle.ranking_accuracy(score)) for cycle in cycles]
        for score in ("head", "entropy")
    )
    gain, caption = cycles[-1].trust.get("gain"), []
    if any(measured.interval for _, measured in metric):
        caption.append("Bars: 95% intervals.")
    expected: list[tuple[int, float | None]] = []
    if gain:
        caption.append('<span class="key dash"></span>expected')
        labeled = cycles[-1].labeled
        ends = gain["now"], gain["now"] + gain["gain"]
        expected = [(labeled, ends[0]), (labeled + gain["labels"], ends[1])]
    return figure(
        title,
        " &ensp;".join(caption),
        lines(
            "images labeled",
            [[(x, measured.value) for x, measured in metric], expected],
            ranges=[(x, measured.interval) for x, measured in metric],
        ),
    ) + figure(
        "Ranking accuracy",
        '<span class="key line"></span>predicted loss &ensp;<span class="key dash"></span>entropy',
        lines(
            "cycle",
            [[(x, measured.value) for x, measured in curve] for curve in (head, entropy)],
            chance=[50.0],
            ranges=[(x, measured.interval) for x, measured in head],
        ),
    )


def _trust_charts(cycles: Sequence[Summary]) -> str:
    """Draw how many predictions stay as they are, where there is more than one cycle of them."""
    agreement = [(cycle.cycle, cycle.agreement) for cycle in cycles if cycle.agreement is not None]
    if len(agreement) < 2:
        return ""
    return figure(
        "Predictions that stay as they are",
        "On unlabeled images, from cycle to cycle.",
        lines("cycle", [agreement]),
    )
