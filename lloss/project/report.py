"""The page that a cycle leaves behind: what to label next, and how it is going.

One self-contained ``report.html`` without scripts; the charts are SVG that takes its colours from
the page, so that they follow its light and dark scheme.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from lloss.files import write_text
from lloss.statistics.charts import figure, histogram, lines
from lloss.statistics.confidence_intervals import (
    Interval,
    decimals,
    in_percent,
    range_in_percent,
    usable,
)
from lloss.text.markup import loss, text

SHOWN_PICKS = 200
"""More would make the page heavy; ``selected.csv`` names them all."""

SHOWN_CLASSES = 30


@dataclass(frozen=True)
class Pick:
    """One image to label next."""

    id: str
    rank: int  # from 1
    score: float  # the predicted loss
    guess: str  # name of the guessed class, "" if there is none
    confidence: float  # of the guess, 0 to 1; NaN if there is none
    thumbnail: bytes | None  # from thumbnail(); None if the image could not be read
    drawn: bool = False  # with what was found on it: shown larger


@dataclass(frozen=True)
class CyclePoint:
    """One cycle of the learning curve; its shares are 0 to 1, and None when not measured."""

    cycle: int
    labeled: int  # images trained on
    metric: float | None  # on the held-out images
    ranking_accuracy: float | None  # of the predicted loss, on the same
    entropy_ranking_accuracy: float | None
    metric_interval: Interval | None = None  # of 95 %; None in files of earlier versions
    ranking_interval: Interval | None = None
    entropy_interval: Interval | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows."""

    project: str
    cycle: int
    task: str
    model: str
    metric_name: str  # such as "accuracy"
    held_out: int  # images the figures were measured on; 0 when none
    strategy: str  # one plain sentence on how the picks were chosen
    pool: int  # images scored
    skipped: int  # images that could not be read
    labeled: int  # images trained on
    classes: Mapping[str, int]  # what is labeled of each: images, objects, or joints
    losses: NDArray[np.float32]  # predicted, of all scored images [pool]; may hold NaN
    picks: Sequence[Pick]  # best first
    history: Sequence[CyclePoint]  # all cycles so far, the last is this one
    provenance: Mapping[str, str]  # for the small print
    counted: str = "Labeled images per class"  # what the numbers of ``classes`` are
    held_back: int = 0  # labels kept for measuring
    ranked: bool | None = None  # whether the predicted loss is shown to rank; None: not measured
    warnings: Sequence[str] = ()  # why not to rely on figures or picks
    notes: Sequence[str] = ()  # what else the user should know


def write_report(data: ReportData, path: Path) -> None:
    """Write the page whole or not at all; the same data give the same bytes."""
    page = Template(resources.files(__package__).joinpath("report.html").read_text("utf-8"))
    write_text(
        path,
        page.substitute(
            title=f"{text(data.project)}, cycle {data.cycle} · lloss",
            where=f"<b>{text(data.project)}</b> · cycle {data.cycle} · {text(data.task)}"
            f" · {text(data.model)}",
            headline=_headline(len(data.picks)),
            strategy=text(data.strategy),
            figures=_figures(data),
            banner=_banner(data.warnings),
            picks=_picks(data.picks, data.ranked),
            notes=_notes(data.notes),
            counted=text(data.counted),
            measured=_MEASURED.format(held_out=data.held_out) if data.held_out else "",
            charts=histogram(data.losses, [pick.score for pick in data.picks])
            + (_curves(data) if data.held_out else _UNMEASURED),
            metric=text(_SPELLED.get(data.metric_name, data.metric_name)),
            cycles="\n".join(map(_row, data.history)),
            classes=_classes(data.classes),
            provenance="\n".join(
                f"<dt>{text(name)}</dt><dd>{text(value)}</dd>"
                for name, value in data.provenance.items()
            ),
        ),
    )


_MEASURED = """<p class="note">Measured on {held_out:,} held-out images. Ranking accuracy is the
share of pairs that a score puts in the order of their true loss.</p>"""

_UNMEASURED = """<p class="note">How accurate the model is, and how well its predicted loss ranks
images, can only be measured on labeled images that it does not train on, and this project has
none. <code>lloss init</code> takes some by <code>--test</code>, or keeps back a share of the
labels by <code>--holdout</code>; then this page shows both over the cycles.</p>"""


def _headline(picks: int) -> str:
    if not picks:
        return "There is nothing left to label"
    these = f"these {picks:,} images" if picks > 1 else "this image"
    return f"Label {these} next, then run <code>lloss next</code> again"


def _banner(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    lines = "\n".join(f"<li>{text(_sentence(line))}</li>" for line in warnings)
    return f'<div class="banner" role="note"><ul role="list">\n{lines}\n</ul></div>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    lines = "\n".join(f"<li>{text(_sentence(line))}</li>" for line in notes)
    return f'<section id="notes">\n<h2>To know</h2>\n<ul class="note">\n{lines}\n</ul>\n</section>'


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}."


def _figures(data: ReportData) -> str:
    now, before = data.history[-1], data.history[-2] if len(data.history) > 1 else None
    since = f"since cycle {before.cycle}" if before else ""
    growth = f"{data.labeled - before.labeled:+,} {since}" if before else ""
    back = f"{data.held_back:,} more are held out" if data.held_back else ""
    skipped = f"{data.skipped:,} more" if data.skipped else ""
    within = f"{range_in_percent(now.ranking_interval)} · " if usable(now.ranking_interval) else ""
    ranking = f"{within}entropy {_entropy(now, within=True)}, chance 50%"
    rows = [
        ("labeled", f"{data.labeled:,}", growth or f"in {len(data.classes):,} classes", back),
        ("pool", f"{data.pool:,}", f"{skipped} could not be read" if skipped else "images scored"),
        (
            data.metric_name,
            in_percent(now.metric, now.metric_interval),
            _change(now, before) or f"on {data.held_out:,} held-out images",
            _within(now.metric_interval),
        ),
        ("ranking accuracy", in_percent(now.ranking_accuracy, now.ranking_interval), ranking),
    ]
    if not data.held_out:
        rows[2:] = [(row[0], "–", "not measured") for row in rows[2:]]
    return "\n".join(
        f'<div><dt>{text(_titled(name))}</dt><dd class="number">{number}</dd>'
        f"{''.join(f'<dd>{note}</dd>' for note in notes if note)}</div>"
        for name, number, *notes in rows
    )


def _within(interval: Interval | None) -> str:
    return f"95% interval {range_in_percent(interval)}" if usable(interval) else ""


def _change(now: CyclePoint, before: CyclePoint | None) -> str:
    """How the metric moved; whether that is more than the held-out images can tell."""
    if not before or before.metric is None or now.metric is None:
        return ""
    places = max(decimals(now.metric_interval) - 2, 0) if usable(now.metric_interval) else 1
    points = f"{100 * (now.metric - before.metric):+z.{places}f}".replace("-", "−")
    change = f"{points} points since cycle {before.cycle}"
    if now.metric_interval is None or not usable(now.metric_interval):
        return change
    low, high = now.metric_interval
    return f"{change}, within the interval" if low <= before.metric <= high else change


def _picks(picks: Sequence[Pick], ranked: bool | None) -> str:
    if not picks:
        return '<p class="note">Every image of the pool is labeled or could not be read.</p>'
    more = len(picks) - SHOWN_PICKS
    rest = f'\n<p class="note more">{more:,} more are in <code>selected.csv</code>.</p>'
    tiles = "\n".join(_tile(pick) for pick in picks[:SHOWN_PICKS])
    large = " large" if any(pick.drawn for pick in picks) else ""
    number, score = "rank", "a score to rank by, in no unit"
    if ranked is False:
        number, score = "number", "not shown to rank images, in no unit"
    return (
        f'<p class="note">Each with its {number}, its <b>predicted loss</b> ({score}), and what '
        "the model takes it for. All ids are in <code>selected.csv</code>.</p>\n"
        f'<ol class="picks{large}" role="list">\n{tiles}\n</ol>{rest if more > 0 else ""}'
    )


def _tile(pick: Pick) -> str:
    image = "<span>could not be read</span>"
    if pick.thumbnail is not None:
        kind = "png" if pick.thumbnail.startswith(b"\x89PNG") else "jpeg"
        source = f"data:image/{kind};base64,{b64encode(pick.thumbnail).decode()}"
        image = f'<img src="{source}" alt="Image {pick.rank} to label">'
    name, sure = text(pick.guess), ""
    if math.isfinite(pick.confidence):
        sure = f'<span class="sure">{pick.confidence:.0%}</span>'
    guess = f'<div class="pair"><span class="guess" title="{name}">{name}</span>{sure}</div>'
    return (
        f'<li><div class="thumb">{image}</div>'
        f'<div class="pair"><span class="rank">#{pick.rank}</span><b>{loss(pick.score)}</b></div>'
        f'{guess if name else ""}<bdi class="id" title="{text(pick.id)}">'
        f'<bdi dir="ltr">{text(pick.id)}</bdi></bdi></li>'
    )


_SPELLED = {"map": "mAP", "pck": "PCK", "miou": "mIoU"}


def _titled(name: str) -> str:
    return _SPELLED.get(name, name[:1].upper() + name[1:])


def _curves(data: ReportData) -> str:
    now, name = data.history[-1], text(_titled(data.metric_name))
    metric = [(p.labeled, p.metric) for p in data.history]
    head = [(p.cycle, p.ranking_accuracy) for p in data.history]
    entropy = [(p.cycle, p.entropy_ranking_accuracy) for p in data.history]
    metric_ranges = [(p.labeled, p.metric_interval) for p in data.history]
    ranking_ranges = [(p.cycle, p.ranking_interval) for p in data.history]
    bars = " Bars: 95% intervals." if any(usable(r) for _, r in metric_ranges) else ""
    return figure(
        name,
        f"{in_percent(now.metric, now.metric_interval)} after training on {now.labeled:,} images."
        f"{bars}",
        lines("images labeled", [metric], ranges=metric_ranges),
    ) + figure(
        "Ranking accuracy",
        f'<span class="key line"></span>predicted loss '
        f"{in_percent(now.ranking_accuracy, now.ranking_interval)} &ensp;"
        f'<span class="key dash"></span>entropy {_entropy(now)}',
        lines("cycle", [head, entropy], chance=[50.0], ranges=ranking_ranges),
    )


def _entropy(point: CyclePoint, within: bool = False) -> str:
    """How entropy ranks, by choice with its interval."""
    share = in_percent(point.entropy_ranking_accuracy, point.entropy_interval)
    interval = range_in_percent(point.entropy_interval) if within else ""
    return f"{share} ({interval})" if interval else share


def _row(point: CyclePoint) -> str:
    metric = in_percent(point.metric, point.metric_interval)
    ranking = in_percent(point.ranking_accuracy, point.ranking_interval)
    cells = (
        str(point.cycle),
        f"{point.labeled:,}",
        metric,
        range_in_percent(point.metric_interval) or "–",
        ranking,
        range_in_percent(point.ranking_interval) or "–",
        _entropy(point),
        range_in_percent(point.entropy_interval) or "–",
    )
    return f"<tr><td>{'</td><td>'.join(cells)}</td></tr>"


def _classes(classes: Mapping[str, int]) -> str:
    if not classes:
        return '<p class="note">No image is labeled.</p>'
    fewest = sorted(classes.items(), key=lambda item: item[1])
    shown, rest = fewest[:SHOWN_CLASSES], fewest[SHOWN_CLASSES:]
    most, longest = max(shown[-1][1], 1), max(len(name) for name, _ in shown)
    bars = "\n".join(
        f'<li><span title="{text(name)}">{text(name)}</span><span class="bar"'
        f' style="width: {count / most:.1%}"></span><span class="count">{count:,}</span></li>'
        for name, count in shown
    )
    note = f"{len(classes):,} classes, the one with the fewest labels first."
    if rest:
        note += f" {len(rest):,} more have {rest[0][1]:,} to {rest[-1][1]:,} each."
    return (
        f'<p class="note">{note}</p>\n'
        f'<ul class="classes" role="list" style="--name: {min(longest, 16)}ch">\n{bars}\n</ul>'
    )
