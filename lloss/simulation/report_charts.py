"""The charts of a simulation: learning curves, differences to the reference, and one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lloss.simulation.comparison import Comparison, MethodResult, ScenarioResult
from lloss.simulation.figure_text import in_full
from lloss.simulation.measured import Difference, Measured
from lloss.simulation.tables import Cell, Table, ranked
from lloss.simulation.verdict import best_gain
from lloss.statistics.axes import HEIGHT, WIDTH
from lloss.statistics.canvas import Canvas
from lloss.statistics.canvas_png import Placed, png, text_width
from lloss.statistics.confidence_intervals import usable
from lloss.statistics.learning_curves import Curve, draw_curves, interval_strip

REFERENCE, REST = "reference", "rest"

COLORS = ("c0", "c1", "c2", "c3", "c4", "c5")

LABEL = "labels"

_COLUMNS, _GAP, _HEAD, _FOOT = 3, 20, 46, 22  # of the picture


def colors(comparison: Comparison) -> dict[str, str]:
    """A colour for the reference, the default and the methods with the largest gains.

    The others share a pale one: nobody could distinguish more lines than that.
    """
    plan, order = comparison.plan, ranked(comparison)
    first = [plan.default] if plan.default and plan.default != plan.reference else []
    named = first + [m for m in order if m not in (*first, plan.reference)]
    found = dict.fromkeys(named, REST) | dict(zip(named, COLORS))
    return {**({plan.reference: REFERENCE} if plan.reference else {}), **found}


def scenario_curves(scenario: ScenarioResult, of: Mapping[str, str]) -> Canvas | None:
    """The learning curves of the methods in ``of``, which has their colours; the first on top."""
    curves = [_curve(scenario.of(method), color) for method, color in _on_top(of)]
    return draw_curves([curve for curve in curves if curve.x], LABEL)


def scenario_gains(scenario: ScenarioResult, of: Mapping[str, str]) -> Canvas | None:
    """The difference of each method in ``of`` to the reference, at each cycle."""
    curves = [
        _points(method, color, scenario.of(method).labels.tolist(), gain.curve)
        for method, color in _on_top(of)
        if (gain := scenario.of(method).gain) is not None
    ]
    return draw_curves(curves, LABEL, zero=True, least=0.02) if curves else None


def _on_top(of: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(of.items(), key=lambda item: item[1] == REST)


def _curve(result: MethodResult, color: str) -> Curve:
    return _points(result.method, color, result.labels.tolist(), result.curve)


def _points(method: str, color: str, labels: Sequence[float], curve: Sequence[Measured]) -> Curve:
    bands = [] if color == REST else [each.interval for each in curve]
    return Curve(method, color, labels[: len(curve)], [each.value for each in curve], bands)


def reach_of(tables: Sequence[Table]) -> float:
    """The share at both ends of the strips of these tables.

    A few methods that fail altogether are beyond it: they would press all others onto zero.
    """
    cells = [cell for table in tables for row in table.rows.values() for cell in row]
    ends = [end for cell in cells if (end := _far_end(cell.difference)) is not None]
    if not ends:
        return 0.01
    most = min(max(ends), 2 * float(np.quantile(ends, 0.8)))
    return max(math.ceil(100 * most), 1) / 100


def _far_end(difference: Difference | None) -> float | None:
    """How far from zero the interval reaches, or the value without one."""
    if difference is None:
        return None
    final = difference.final
    ends = final.interval if usable(final.interval) else (final.value,)
    return max(map(abs, ends))


def strip(cell: Cell, reach: float) -> str:
    """The interval of a difference against zero."""
    difference = cell.difference
    if difference is None:
        return ""
    final = difference.final
    says = in_full(difference)
    return interval_strip(final.value, final.interval, reach, difference.sign, says).svg()


def picture(comparison: Comparison, title: str) -> bytes:
    """The learning curves of all scenarios as one PNG."""
    of = colors(comparison)
    across = min(len(comparison.scenarios), _COLUMNS)
    width = across * WIDTH + (across + 1) * _GAP
    placed, top = [], _heading(title, width)
    for place, scenario in enumerate(comparison.scenarios):
        row, column = divmod(place, across)
        x = _GAP + column * (WIDTH + _GAP)
        y = top.height + row * (HEIGHT + _HEAD + _GAP)
        placed.append(Placed(_title(comparison, scenario), x, y))
        placed.append(Placed(scenario_curves(scenario, of) or _nothing(), x, y + _HEAD))
    rows = -(-len(comparison.scenarios) // across)
    bottom = top.height + rows * (HEIGHT + _HEAD + _GAP)
    legend = _legend(of, width)
    sheet = [Placed(top, 0, 0), *placed, Placed(legend, 0, bottom)]
    return png(sheet, width, bottom + legend.height)


def _heading(title: str, width: float) -> Canvas:
    canvas, lines = Canvas(width, 0), _wrapped(title, width - 2 * _GAP)
    for number, line in enumerate(lines, 1):
        canvas.text((_GAP, 8 + 20 * number), line, "title")
    return replace(canvas, height=20 + 20 * len(lines))


def _title(comparison: Comparison, scenario: ScenarioResult) -> Canvas:
    canvas, plan = Canvas(WIDTH, _HEAD), comparison.plan
    canvas.text((0, 16), _cut(scenario.name, WIDTH, title=True), "title")
    subject = plan.default or best_gain(comparison)
    gain = scenario.of(subject).gain
    what = scenario.metric
    if gain is not None and comparison.complete:
        what = f"{subject} {in_full(gain)}"
    canvas.text((0, 34), _cut(what, WIDTH))
    return canvas


def _nothing() -> Canvas:
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.text((WIDTH / 2, HEIGHT / 2), "no trial has finished yet", anchor="middle")
    return canvas


def _legend(of: Mapping[str, str], width: float) -> Canvas:
    names: dict[str, str] = {method: color for method, color in of.items() if color != REST}
    others = len(of) - len(names)
    if others:
        names[f"{others} other methods"] = REST
    canvas, x, y = Canvas(width, 0), float(_GAP), 14.0
    for name, color in names.items():
        shown = _cut(name, width - 2 * _GAP - 30)
        needed = 26 + text_width(shown)
        if x > _GAP and x + needed > width - _GAP:
            x, y = float(_GAP), y + 20
        canvas.line([(x, y - 4), (x + 20, y - 4)], f"curve {color}")
        canvas.text((x + 26, y), shown)
        x += needed + 22
    return replace(canvas, height=y + _FOOT)


def _cut(text: str, width: float, title: bool = False) -> str:
    while text_width(text, title) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def _wrapped(title: str, width: float) -> list[str]:
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, title=True) > width:
            lines.append(_cut(word, width, title=True))
        else:
            lines[-1] = _cut(longer, width, title=True)
    return lines
