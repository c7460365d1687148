"""The page that a cycle leaves behind: what to label next, and how it is going.

One self-contained ``report.html`` without scripts; the charts are SVG that takes its colours from
the page, so that they follow its light and dark scheme.
"""

from __future__ import annotations

import html
import io
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lloss.files import write_text

SHOWN_PICKS = 200
"""More would make the page heavy; ``selected.csv`` names them all."""

SHOWN_CLASSES = 30

_BINS = 40
_BASE = 170  # of every chart, in the units of its SVG
_JOINERS = "\u200c\u200d"  # unprintable to Python, but part of many scripts' words


@dataclass(frozen=True)
class Pick:
    """One image to label next."""

    id: str
    rank: int  # from 1
    score: float  # the predicted loss
    guess: str  # name of the guessed class, "" if there is none
    confidence: float  # of the guess, 0 to 1; NaN if there is none
    thumbnail: bytes | None  # from thumbnail(); None if the image could not be read


@dataclass(frozen=True)
class CyclePoint:
    """One cycle of the learning curve; its shares are 0 to 1, and None when not measured."""

    cycle: int
    labeled: int  # images trained on
    metric: float | None  # on the held-out images
    ranking_accuracy: float | None  # of the predicted loss, on the same
    entropy_ranking_accuracy: float | None


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
    classes: Mapping[str, int]  # labeled images of each
    losses: NDArray[np.float32]  # predicted, of all scored images [pool]; may hold NaN
    picks: Sequence[Pick]  # best first
    history: Sequence[CyclePoint]  # all cycles so far, the last is this one
    provenance: Mapping[str, str]  # for the small print


def thumbnail(pixels: NDArray[np.uint8], side: int = 96) -> bytes:
    """Encode an image uint8 [H, W, 3] so that its longer edge is at most ``side`` pixels.

    An image of at most half that is enlarged by a whole factor, each pixel to a crisp square, and
    becomes a PNG; any other becomes a JPEG.
    """
    factor = side // max(pixels.shape[:2])
    encoded = io.BytesIO()
    if factor > 1:
        Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1)).save(encoded, "PNG")
    else:
        image = Image.fromarray(pixels)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        image.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def write_report(data: ReportData, path: Path) -> None:
    """Write the page whole or not at all; the same data give the same bytes."""
    page = Template(resources.files("lloss").joinpath("report.html").read_text("utf-8"))
    write_text(
        path,
        page.substitute(
            title=f"{_text(data.project)}, cycle {data.cycle} · lloss",
            where=f"<b>{_text(data.project)}</b> · cycle {data.cycle} · {_text(data.task)}"
            f" · {_text(data.model)}",
            headline=_headline(len(data.picks)),
            strategy=_text(data.strategy),
            figures=_figures(data),
            picks=_picks(data.picks),
            measured=_MEASURED.format(held_out=data.held_out) if data.held_out else "",
            charts=_histogram(data) + (_curves(data) if data.held_out else _UNMEASURED),
            metric=_text(data.metric_name),
            cycles="\n".join(map(_row, data.history)),
            classes=_classes(data.classes),
            provenance="\n".join(
                f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>"
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


def _text(value: str) -> str:
    """Any string as visible text or a quoted attribute; what cannot be seen becomes ``\\n``."""
    visible = (
        c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode()
        for c in value
    )
    return html.escape("".join(visible))


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None and math.isfinite(value) else "–"


def _loss(value: float) -> str:
    """A predicted loss at a glance: about three digits."""
    size = abs(value)
    digits = "#.3g" if 0.1 <= size < 999.5 else ",.0f" if 999.5 <= size < 1e6 else ".2g"
    return f"{value:{digits}}".rstrip(".").replace("-", "−")


def _headline(picks: int) -> str:
    if not picks:
        return "There is nothing left to label"
    these = f"these {picks:,} images" if picks > 1 else "this image"
    return f"Label {these} next, then run <code>lloss next</code> again"


def _figures(data: ReportData) -> str:
    now, before = data.history[-1], data.history[-2] if len(data.history) > 1 else None
    since = f"since cycle {before.cycle}" if before else ""
    growth = f"{data.labeled - before.labeled:+,} {since}" if before else ""
    change = ""
    if before and before.metric is not None and now.metric is not None:
        change = f"{100 * (now.metric - before.metric):+z.1f} points {since}".replace("-", "−")
    skipped = f"{data.skipped:,} more" if data.skipped else ""
    ranking = f"entropy {_percent(now.entropy_ranking_accuracy)}, chance 50%"
    rows = [
        ("labeled", f"{data.labeled:,}", growth or f"in {len(data.classes):,} classes"),
        ("pool", f"{data.pool:,}", f"{skipped} could not be read" if skipped else "images scored"),
        (data.metric_name, _percent(now.metric), change or f"on {data.held_out:,} held-out images"),
        ("ranking accuracy", _percent(now.ranking_accuracy), ranking),
    ]
    if not data.held_out:
        rows[2:] = [(name, "–", "not measured") for name, *_ in rows[2:]]
    return "\n".join(
        f'<div><dt>{_text(name)}</dt><dd class="number">{number}</dd><dd>{note}</dd></div>'
        for name, number, note in rows
    )


def _picks(picks: Sequence[Pick]) -> str:
    if not picks:
        return '<p class="note">Every image of the pool is labeled or could not be read.</p>'
    more = len(picks) - SHOWN_PICKS
    rest = f'\n<p class="note more">{more:,} more are in <code>selected.csv</code>.</p>'
    tiles = "\n".join(_tile(pick) for pick in picks[:SHOWN_PICKS])
    return (
        '<p class="note">Each with its rank, its <b>predicted loss</b>, and what the model takes it'
        " for. All ids are in <code>selected.csv</code>.</p>\n"
        f'<ol class="picks" role="list">\n{tiles}\n</ol>{rest if more > 0 else ""}'
    )


def _tile(pick: Pick) -> str:
    image = "<span>could not be read</span>"
    if pick.thumbnail is not None:
        kind = "png" if pick.thumbnail.startswith(b"\x89PNG") else "jpeg"
        source = f"data:image/{kind};base64,{b64encode(pick.thumbnail).decode()}"
        image = f'<img src="{source}" alt="Image {pick.rank} to label">'
    name, sure = _text(pick.guess), ""
    if math.isfinite(pick.confidence):
        sure = f'<span class="sure">{pick.confidence:.0%}</span>'
    guess = f'<div class="pair"><span class="guess" title="{name}">{name}</span>{sure}</div>'
    return (
        f'<li><div class="thumb">{image}</div>'
        f'<div class="pair"><span class="rank">#{pick.rank}</span><b>{_loss(pick.score)}</b></div>'
        f'{guess if name else ""}<bdi class="id" title="{_text(pick.id)}">'
        f'<bdi dir="ltr">{_text(pick.id)}</bdi></bdi></li>'
    )


@dataclass(frozen=True)
class _Plane:
    """The ranges of data that fill a chart of 340 × 220 units."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, x: float) -> float:
        return round(float(np.interp(x, self.x, (44, 328))), 1)

    def up(self, y: float) -> float:
        return round(float(np.interp(y, self.y, (_BASE, 20))), 1)

    def chart(self, marks: str, x_ticks: Sequence[float], label: str, unit: str, says: str) -> str:
        """Marks between axes; ``says`` is for those who cannot see them."""
        rows = "".join(
            f'<path class="grid" d="M44 {self.up(y)}h284"/>'
            f'<text x="37" y="{self.up(y) + 4:.1f}" text-anchor="end">{name}{unit}</text>'
            for y, name in _named(_ticks(*self.y))
        )
        columns = "".join(
            f'<text x="{self.across(x)}" y="194" text-anchor="middle">{name}</text>'
            for x, name in _named(x_ticks)
        )
        return (
            f'<svg viewBox="0 0 340 220" role="img" aria-label="{_text(says)}">{rows}'
            f"{marks}{columns}"
            f'<text x="328" y="215" text-anchor="end">{label}</text></svg>'
        )


def _ticks(low: float, high: float, least: float = 0) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most seven, at least ``least`` apart."""
    rough = max((high - low) / 6, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * 0.999)
    numbers = range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)
    return [float(f"{number * step:.12g}") for number in numbers]


def _named(ticks: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks and their labels, all in the same unit."""
    largest = max(map(abs, ticks), default=0)
    size, unit = (
        (1e6, "M") if 1e6 <= largest < 1e9 else (1e3, "k") if 1e4 <= largest < 1e6 else (1, "")
    )
    return [(x, f"{x / size:,g}{unit if x else ''}".replace("-", "−")) for x in ticks]


def _figure(title: str, caption: str, chart: str) -> str:
    return f"<figure><figcaption><h3>{title}</h3><p>{caption}</p></figcaption>\n{chart}</figure>\n"


def _histogram(data: ReportData) -> str:
    losses = data.losses[np.isfinite(data.losses)].astype(np.float64)
    if not losses.size:
        return '<p class="note">No image has a predicted loss.</p>\n'
    span = _bulk(losses)
    picks = np.array([pick.score for pick in data.picks if math.isfinite(pick.score)])
    counts, edges = np.histogram(losses.clip(*span), _BINS, span)
    picked = np.minimum(np.histogram(picks.clip(*span), edges)[0], counts)
    plane = _Plane(span, (0, float(counts.max())))
    marks = f'<path class="base" d="M44 {_BASE}h284"/>'
    marks += _bars(plane, edges, counts, "rest") + _bars(plane, edges, picked, "picked")
    caption = '<span class="key"></span>the pool'
    says = f"{losses.size:,} images from {losses.min():.3g} to {losses.max():.3g}"
    if picks.size:
        marks += _where_picked(plane, picks)
        caption += ' &ensp;<span class="key hot"></span>the picks, also as strokes below'
        says += f"; {picks.size:,} picked from {picks.min():.3g} to {picks.max():.3g}"
    outside = int(((losses < span[0]) | (losses > span[1])).sum())
    unknown = data.losses.size - losses.size
    notes = [f"{outside:,} off the scale"] * bool(outside) + [f"{unknown:,} NaN"] * bool(unknown)
    caption += "<br>" * bool(notes) + ", ".join(notes)
    return _figure(
        "Images by predicted loss",
        caption,
        plane.chart(marks, _ticks(*span), "predicted loss", "", says),
    )


def _bulk(losses: NDArray[np.float64]) -> tuple[float, float]:
    """The range to draw: one absurd value must not press all others into one bar."""
    inner = np.quantile(losses, (0.005, 0.995))
    reach = float(inner[1] - inner[0])
    low, high = max(losses.min(), inner[0] - reach), min(losses.max(), inner[1] + reach)
    room = 0.0 if high - low > 1e-6 * max(-low, high) else abs(low) / 10 or 1.0
    return float(low) - room, float(high) + room


def _bars(plane: _Plane, edges: NDArray[Any], counts: NDArray[Any], kind: str) -> str:
    lefts = [plane.across(edge) for edge in edges]
    bars = "".join(
        f"M{left} {_BASE}V{plane.up(count)}H{right - 1:.1f}V{_BASE}"
        for left, right, count in zip(lefts, lefts[1:], counts, strict=False)
        if count
    )
    return f'<path class="{kind}" d="{bars}"/>'


def _where_picked(plane: _Plane, scores: NDArray[np.float64]) -> str:
    """A stroke a pick below the base line, and a line at the lowest of them."""
    strokes = sorted({plane.across(score) for score in scores})  # no more than the eye can tell
    rug = "".join(f"M{x} {_BASE + 3}v7" for x in strokes)
    anchor, nudge = ("start", 5) if strokes[0] < 186 else ("end", -5)
    return (
        f'<path class="rug" d="{rug}"/><path class="cut" d="M{strokes[0]} 4V{_BASE}"/>'
        f'<text x="{strokes[0] + nudge:.1f}" y="12" text-anchor="{anchor}">'
        f"lowest pick {_loss(float(scores.min()))}</text>"
    )


def _curves(data: ReportData) -> str:
    now, name = data.history[-1], _text(data.metric_name)
    metric = [(p.labeled, p.metric) for p in data.history]
    head = [(p.cycle, p.ranking_accuracy) for p in data.history]
    entropy = [(p.cycle, p.entropy_ranking_accuracy) for p in data.history]
    return _figure(
        name[:1].upper() + name[1:],
        f"{_percent(now.metric)} after training on {now.labeled:,} images",
        _lines("images labeled", [metric]),
    ) + _figure(
        "Ranking accuracy",
        f'<span class="key line"></span>predicted loss {_percent(now.ranking_accuracy)} &ensp;'
        f'<span class="key dash"></span>entropy {_percent(now.entropy_ranking_accuracy)}',
        _lines("cycle", [head, entropy], chance=[50.0]),
    )


def _lines(
    label: str, lines: Sequence[Sequence[tuple[int, float | None]]], chance: Sequence[float] = ()
) -> str:
    """Shares as percentages over whole numbers; the first line is the one that matters."""
    known = [[(x, 100 * y) for x, y in line if y is not None and y == y] for line in lines]
    xs = [x for line in known for x, _ in line] or [0]
    ys = [y for line in known for _, y in line] + list(chance)
    if not ys:
        return '<p class="note">Not measured yet.</p>'
    low, high = _around(min(ys), max(ys), 10)
    plane = _Plane(_around(min(xs), max(xs), 1), (max(low, 0), min(high, 100)))
    marks = "".join(
        f'<path class="chance" d="M44 {plane.up(y)}h284"/>'
        f'<text x="328" y="{plane.up(y) - 5:.1f}" text-anchor="end">chance</text>'
        for y in chance
    )
    for kind, line in reversed(list(zip(("head", "other"), known, strict=False))):
        points = [f"{plane.across(x)} {plane.up(y)}" for x, y in line]
        marks += f'<path class="curve {kind}" d="M{"L".join(points)}"/>' if points else ""
        marks += f'<path class="dots {kind}" d="M{"h0M".join(points)}h0"/>' if points else ""
    ticks: list[float] = sorted(set(xs))
    if len(ticks) > 6 or min(np.diff(ticks), default=1) < (ticks[-1] - ticks[0]) / 8:
        ticks = [x for x in _ticks(*plane.x, least=1) if xs[0] <= x <= xs[-1]]
    says = "; ".join(", ".join(f"{x:,}: {y:.1f}%" for x, y in line) for line in known)
    return plane.chart(marks, ticks, label, "%", f"{label} {says}")


def _around(low: float, high: float, least: float) -> tuple[float, float]:
    """A range with some air on both sides, and ``least`` wide."""
    air = max((high - low) * 0.08, (least - (high - low)) / 2)
    return low - air, high + air


def _row(point: CyclePoint) -> str:
    shares = (point.metric, point.ranking_accuracy, point.entropy_ranking_accuracy)
    cells = (str(point.cycle), f"{point.labeled:,}", *map(_percent, shares))
    return f"<tr><td>{'</td><td>'.join(cells)}</td></tr>"


def _classes(classes: Mapping[str, int]) -> str:
    if not classes:
        return '<p class="note">No image is labeled.</p>'
    fewest = sorted(classes.items(), key=lambda item: item[1])
    shown, rest = fewest[:SHOWN_CLASSES], fewest[SHOWN_CLASSES:]
    most, longest = max(shown[-1][1], 1), max(len(name) for name, _ in shown)
    bars = "\n".join(
        f'<li><span title="{_text(name)}">{_text(name)}</span><span class="bar"'
        f' style="width: {count / most:.1%}"></span><span class="count">{count:,}</span></li>'
        for name, count in shown
    )
    note = f"{len(classes):,} classes, the one with the fewest images first."
    if rest:
        note += f" {len(rest):,} more have {rest[0][1]:,} to {rest[-1][1]:,} images each."
    return (
        f'<p class="note">{note}</p>\n'
        f'<ul class="classes" role="list" style="--name: {min(longest, 16)}ch">\n{bars}\n</ul>'
    )
