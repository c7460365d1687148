"""Charts as SVG that takes its colours from the page, so that it follows light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.confidence_intervals import Interval, usable
from lloss.text.markup import loss, text

_BINS = 40
_BASE = 170  # of every chart, in the units of its SVG


@dataclass(frozen=True)
class _Plane:
    """The ranges of data that fill a chart of 340 × 220 units."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, x: float) -> float:
        return round(float(np.interp(x, self.x, (44, 328))), 1)

    def up(self, y: float) -> float:
        return round(float(np.interp(y, self.y, (_BASE, 20))), 1)

    def chart(
        self,
        marks: str,
        x_ticks: Sequence[float],
        label: str,
        unit: str,
        says: str,
    ) -> str:
        """Draw marks between axes; ``says`` is the description for a screen reader."""
        rows = "".join(
            f'<path class="grid" d="M44 {self.up(y)}h284"/>'
            f'<text x="37" y="{self.up(y) + 4:.1f}" text-anchor="end">{name}{unit}</text>'
            for y, name in _named(_ticks(*self.y, least=1))
        )
        columns = "".join(
            f'<text x="{self.across(x)}" y="194" text-anchor="middle">{name}</text>'
            for x, name in _named(x_ticks)
        )
        return (
            f'<svg viewBox="0 0 340 220" role="img" aria-label="{text(says)}">{rows}'
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


def figure(title: str, caption: str, chart: str) -> str:
    """A chart with its heading."""
    return f"<figure><figcaption><h3>{title}</h3><p>{caption}</p></figcaption>\n{chart}</figure>\n"


@dataclass(frozen=True)
class LossHistogram:
    """How predicted losses are spread: all that a histogram needs of millions of them."""

    # Images per bin, int64 [B]; the outermost hold what is off the scale too
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]  # the bins', float64 [B + 1]
    size: int  # images that have a predicted loss
    unknown: int  # images whose loss is NaN or infinite
    outside: int  # images off the scale
    lowest: float  # loss of any image
    highest: float  # likewise

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> LossHistogram | None:
        """Count predicted losses, float [N] with NaN for none; None if no image has one."""
        losses = values[np.isfinite(values)].astype(np.float64)
        if not losses.size:
            return None
        span = _bulk(losses)
        counts, edges = np.histogram(losses.clip(*span), _BINS, span)
        outside = int(((losses < span[0]) | (losses > span[1])).sum())
        unknown = values.size - losses.size
        lowest, highest = float(losses.min()), float(losses.max())
        return cls(counts, edges, losses.size, unknown, outside, lowest, highest)


def histogram(losses: LossHistogram | None, scores: Sequence[float]) -> str:
    """Draw the predicted losses of the pool, and the picks."""
    if losses is None:
        return '<p class="note">No image has a predicted loss.</p>\n'
    counts, edges = losses.counts, losses.edges
    span = float(edges[0]), float(edges[-1])
    picks = np.array([score for score in scores if math.isfinite(score)])
    picked = np.minimum(np.histogram(picks.clip(*span), edges)[0], counts)
    plane = _Plane(span, (0, float(counts.max())))
    marks = f'<path class="base" d="M44 {_BASE}h284"/>'
    marks += _bars(plane, edges, counts, "rest") + _bars(plane, edges, picked, "picked")
    caption = '<span class="key"></span>the pool'
    says = f"{losses.size:,} images from {losses.lowest:.3g} to {losses.highest:.3g}"
    if picks.size:
        marks += _where_picked(plane, picks)
        caption += ' &ensp;<span class="key hot"></span>the picks, also as strokes below'
        says += f"; {picks.size:,} picked from {picks.min():.3g} to {picks.max():.3g}"
    notes = [f"{losses.outside:,} off the scale"] * bool(losses.outside)
    notes += [f"{losses.unknown:,} NaN"] * bool(losses.unknown)
    caption += "<br>" * bool(notes) + ", ".join(notes)
    return figure(
        "Images by predicted loss",
        caption,
        plane.chart(marks, _ticks(*span), "predicted loss", "", says),
    )


def _bulk(losses: NDArray[np.float64]) -> tuple[float, float]:
    """The range to draw: one absurd value must not press all others into one bar."""
    inner = np.quantile(losses, (0.005, 0.995))
    reach = float(inner[1] - inner[0])
    low, high = max(losses.min(), inner[0] - reach), min(losses.max(), inner[1] + reach)
    margin = 0.0 if high - low > 1e-6 * max(-low, high) else abs(low) / 10 or 1.0
    return float(low) - margin, float(high) + margin


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
    strokes = sorted({plane.across(score) for score in scores})  # no more than the eye can separate
    rug = "".join(f"M{x} {_BASE + 3}v7" for x in strokes)
    anchor, nudge = ("start", 5) if strokes[0] < 186 else ("end", -5)
    return (
        f'<path class="rug" d="{rug}"/><path class="cut" d="M{strokes[0]} 4V{_BASE}"/>'
        f'<text x="{strokes[0] + nudge:.1f}" y="12" text-anchor="{anchor}">'
        f"lowest pick {loss(float(scores.min()))}</text>"
    )


def lines(
    label: str,
    curves: Sequence[Sequence[tuple[int, float | None]]],
    chance: Sequence[float] = (),
    ranges: Sequence[tuple[int, Interval | None]] = (),
) -> str:
    """Draw shares as percentages over whole numbers; the first line is the one that matters.

    ``chance`` are levels to mark, ``ranges`` intervals of the first line's points.
    """
    bars = [(x, 100 * r[0], 100 * r[1]) for x, r in ranges if r is not None and usable(r)]
    known = [[(x, 100 * y) for x, y in line if y is not None and y == y] for line in curves]
    xs = [x for line in known for x, _ in line] or [0]
    ys = [y for line in known for _, y in line] + list(chance)
    ys += [end for _, *ends in bars for end in ends]
    if not ys:
        return '<p class="note">Not measured yet.</p>'
    low, high = _around(min(ys), max(ys), 10)
    plane = _Plane(_around(min(xs), max(xs), 1), (max(low, 0), min(high, 100)))
    marks = "".join(
        f'<path class="chance" d="M44 {plane.up(y)}h284"/>'
        f'<text x="328" y="{plane.up(y) - 5:.1f}" text-anchor="end">chance</text>'
        for y in chance
    )
    if bars:
        stems = "".join(
            f"M{plane.across(x)} {plane.up(low)}V{plane.up(high)}m-4 0h8m0 "
            f"{plane.up(low) - plane.up(high):.1f}h-8"
            for x, low, high in bars
        )
        marks += f'<path class="range" d="{stems}"/>'
    for kind, line in reversed(list(zip(("head", "other"), known, strict=False))):
        points = [f"{plane.across(x)} {plane.up(y)}" for x, y in line]
        marks += f'<path class="curve {kind}" d="M{"L".join(points)}"/>' if points else ""
        marks += f'<path class="dots {kind}" d="M{"h0M".join(points)}h0"/>' if points else ""
    ticks: list[float] = sorted(set(xs))
    if len(ticks) > 6 or min(np.diff(ticks), default=1) < (ticks[-1] - ticks[0]) / 8:
        ticks = [x for x in _ticks(*plane.x, least=1) if xs[0] <= x <= xs[-1]]
    says = "; ".join(", ".join(f"{x:,}: {y:.1f}%" for x, y in line) for line in known)
    if bars:
        within = ", ".join(f"{x:,}: {low:.0f}% to {high:.0f}%" for x, low, high in bars)
        says += f"; 95% intervals {within}"
    return plane.chart(marks, ticks, label, "%", f"{label} {says}")


def _around(low: float, high: float, least: float) -> tuple[float, float]:
    """A range with some air on both sides, and ``least`` wide."""
    air = max((high - low) * 0.08, (least - (high - low)) / 2)
    return low - air, high + air
