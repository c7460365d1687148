"""Learning curves with bands, their differences, and intervals beside each other, as drawings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
from lloss.statistics.canvas import Canvas
from lloss.statistics.confidence_intervals import Interval, usable

STRIP = 120, 16
"""The size of :func:`interval_strip`."""


@dataclass(frozen=True)
class Curve:
    """A line of shares over labels, and the 95 % interval of each."""

    name: str
    color: str  # a colour's word of a mark's kind, see :mod:`.canvas`
    x: Sequence[float]  # [C]
    y: Sequence[float]  # [C], 0 to 1; NaN is left out
    bands: Sequence[Interval] = ()  # [C], or none


def draw_curves(
    curves: Sequence[Curve], label: str, zero: bool = False, least: float = 0.1
) -> Canvas | None:
    """Draw curves in percent, the first on top; None where there is no point.

    ``zero`` marks the line where two methods are equal: curves are differences, in points.
    ``least`` is the smallest share that the axis spans.
    """
    values = [y for curve in curves for y in curve.y if math.isfinite(y)]
    xs = [x for curve in curves for x in curve.x]
    if not values:
        return None
    values += [0.0] * zero
    low, high = _span(values, curves, least)
    if not zero:
        low, high = max(low, 0.0), min(high, 100.0)
    plane = Plane(around(min(xs), max(xs), 1), (low, high))
    canvas = Canvas(WIDTH, HEIGHT, f"{label}: {'; '.join(map(_spoken, curves))}")
    _axes(canvas, plane, ticks_at(xs, plane.x), label, "" if zero else "%")
    if zero:
        canvas.line([(LEFT, plane.up(0)), (RIGHT, plane.up(0))], "zero")
    for curve in reversed(curves):
        _band(canvas, plane, curve)
    for curve in reversed(curves):
        at = [
            (plane.across(x), plane.up(100 * y)) for x, y in zip(curve.x, curve.y)
            if math.isfinite(y)
        ]  # fmt: skip
        if at:
            canvas.line(at, f"curve {curve.color}", _spoken(curve))
            canvas.dots(at, f"dots {curve.color}", _spoken(curve))
    return canvas


def _span(values: Sequence[float], curves: Sequence[Curve], least: float) -> tuple[float, float]:
    """The range in percent: bands are cut where they are far wider than the curves are apart."""
    low, high = min(values), max(values)
    most = max(high - low, least)
    ends = [end for curve in curves for band in curve.bands if usable(band) for end in band]
    low = min([low, *(max(end, low - most) for end in ends)])
    high = max([high, *(min(end, high + most) for end in ends)])
    return around(100 * low, 100 * high, 100 * least)


def _spoken(curve: Curve) -> str:
    points = (f"{x:,.0f}: {100 * y:.1f}" for x, y in zip(curve.x, curve.y) if math.isfinite(y))
    return f"{curve.name} {', '.join(points)}"


def _axes(canvas: Canvas, plane: Plane, x_ticks: Sequence[float], label: str, unit: str) -> None:
    for y, name in named(ticks(*plane.y)):
        sign = "+" if not unit and y > 0 else ""
        canvas.line([(LEFT, plane.up(y)), (RIGHT, plane.up(y))], "grid")
        canvas.text((LEFT - 7, plane.up(y) + 4), f"{sign}{name}{unit}", anchor="end")
    for x, name in named(x_ticks):
        canvas.text((plane.across(x), BASE + 24), name, anchor="middle")
    canvas.text((RIGHT, HEIGHT - 5), label, anchor="end")


def _band(canvas: Canvas, plane: Plane, curve: Curve) -> None:
    known = [(x, *band) for x, band in zip(curve.x, curve.bands) if usable(band)]
    upper = [(plane.across(x), plane.up(100 * high)) for x, _, high in known]
    lower = [(plane.across(x), plane.up(100 * low)) for x, low, _ in known]
    if len(known) > 1:
        canvas.area([*upper, *reversed(lower)], f"band {curve.color}")
    elif known:
        canvas.line([*upper, *lower], f"range {curve.color}")


def interval_strip(
    value: float, interval: Interval | None, reach: float, sign: int, says: str = ""
) -> Canvas:
    """Draw one difference against zero, which is in the middle; ``reach`` > 0 is at either end.

    ``sign`` says whether it is clearly above or below zero; at 0 its dot is hollow. An arrow stands
    for a difference beyond the ends; an interval is cut there.
    """
    width, height = STRIP
    canvas, middle = Canvas(width, height, says), height / 2

    def at(share: float) -> float:
        bounded = min(max(share / reach, -1.0), 1.0)
        return width / 2 + bounded * (width / 2 - 6)

    canvas.line([(at(0), 0), (at(0), height)], "zero")
    if not math.isfinite(value):
        return canvas
    color = {1: "better", 0: "unclear", -1: "worse"}[sign]
    if abs(value) > reach:
        tip, back = (width - 1, width - 7) if value > 0 else (1, 7)
        canvas.line([(back, middle - 4), (tip, middle), (back, middle + 4)], f"range {color}")
        return canvas
    if interval is not None and usable(interval):
        canvas.line([(at(interval[0]), middle), (at(interval[1]), middle)], f"range {color}")
    canvas.dots([(at(value), middle)], f"dots {color}")
    if not sign:
        canvas.dots([(at(value), middle)], "hole")
    return canvas
