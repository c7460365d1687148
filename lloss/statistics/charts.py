"""Charts as SVG that takes its colours from the page, so that it follows light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.axes import (
    BASE,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Plane,
    around,
    named,
    ticks,
    ticks_at,
)
from lloss.statistics.confidence_intervals import Interval, usable
from lloss.text.markup import loss, text

_BINS = 40


def _chart(
    plane: Plane, marks: str, x_ticks: Sequence[float], label: str, unit: str, says: str
) -> str:
    """Draw marks between axes; ``says`` is the description for a screen reader."""
    rows = "".join(
        f'<path class="grid" d="M{LEFT} {plane.up(y)}h{RIGHT - LEFT}"/>'
        f'<text x="{LEFT - 7}" y="{plane.up(y) + 4:.1f}" text-anchor="end">{name}{unit}</text>'
        for y, name in named(ticks(*plane.y, least=1))
    )
    columns = "".join(
        f'<text x="{plane.across(x)}" y="{BASE + 24}" text-anchor="middle">{name}</text>'
        for x, name in named(x_ticks)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(says)}">{rows}'
        f"{marks}{columns}"
        f'<text x="{RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{label}</text></svg>'
    )


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
    plane = Plane(span, (0, float(counts.max())))
    marks = f'<path class="base" d="M{LEFT} {BASE}h{RIGHT - LEFT}"/>'
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
        _chart(plane, marks, ticks(*span), "predicted loss", "", says),
    )


def _bulk(losses: NDArray[np.float64]) -> tuple[float, float]:
    """The range to draw: one absurd value must not press all others into one bar."""
    inner = np.quantile(losses, (0.005, 0.995))
    reach = float(inner[1] - inner[0])
    low, high = max(losses.min(), inner[0] - reach), min(losses.max(), inner[1] + reach)
    margin = 0.0 if high - low > 1e-6 * max(-low, high) else abs(low) / 10 or 1.0
    return float(low) - margin, float(high) + margin


def _bars(plane: Plane, edges: NDArray[Any], counts: NDArray[Any], kind: str) -> str:
    lefts = [plane.across(edge) for edge in edges]
    bars = "".join(
        f"M{left} {BASE}V{plane.up(count)}H{right - 1:.1f}V{BASE}"
        for left, right, count in zip(lefts, lefts[1:], counts, strict=False)
        if count
    )
    return f'<path class="{kind}" d="{bars}"/>'


def _where_picked(plane: Plane, scores: NDArray[np.float64]) -> str:
    """A stroke a pick below the base line, and a line at the lowest of them."""
    strokes = sorted({plane.across(score) for score in scores})  # no more than the eye can separate
    rug = "".join(f"M{x} {BASE + 3}v7" for x in strokes)
    anchor, nudge = ("start", 5) if strokes[0] < 186 else ("end", -5)
    return (
        f'<path class="rug" d="{rug}"/><path class="cut" d="M{strokes[0]} 4V{BASE}"/>'
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
    low, high = around(min(ys), max(ys), 10)
    plane = Plane(around(min(xs), max(xs), 1), (max(low, 0), min(high, 100)))
    marks = "".join(
        f'<path class="chance" d="M{LEFT} {plane.up(y)}h{RIGHT - LEFT}"/>'
        f'<text x="{RIGHT}" y="{plane.up(y) - 5:.1f}" text-anchor="end">chance</text>'
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
    says = "; ".join(", ".join(f"{x:,}: {y:.1f}%" for x, y in line) for line in known)
    if bars:
        within = ", ".join(f"{x:,}: {low:.0f}% to {high:.0f}%" for x, low, high in bars)
        says += f"; 95% intervals {within}"
    return _chart(plane, marks, ticks_at(xs, plane.x), label, "%", f"{label} {says}")
