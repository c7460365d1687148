from __future__ import annotations

import math

import pytest

from lloss.statistics.axes import BASE, LEFT, RIGHT, TOP
from lloss.statistics.canvas import Canvas, Mark
from lloss.statistics.learning_curves import STRIP, Curve, draw_curves, interval_strip

NAN = math.nan


def marks(canvas: Canvas | None, word: str) -> list[Mark]:
    assert canvas is not None
    return [mark for mark in canvas.marks if word in mark.kind.split()]


def curve(name: str = "ours", color: str = "c0", **changes: object) -> Curve:
    made = {"x": [100, 200, 300], "y": [0.4, 0.5, 0.6]} | changes
    return Curve(name, color, **made)  # type: ignore[arg-type]


def test_higher_is_higher_and_more_labels_are_further_right() -> None:
    (line,) = marks(draw_curves([curve()], "labels"), "curve")
    xs, ys = zip(*line.points, strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
    assert all(LEFT <= x <= RIGHT for x in xs) and all(TOP <= y <= BASE for y in ys)
    assert line.text == "ours 100: 40.0, 200: 50.0, 300: 60.0"


def test_a_band_surrounds_its_curve_and_the_first_curve_is_on_top() -> None:
    bands = [(0.35, 0.45), (NAN, NAN), (0.5, 0.7)]
    canvas = draw_curves([curve(bands=bands), curve("random", "reference")], "labels")
    (band,) = marks(canvas, "band")
    (line,) = (mark for mark in marks(canvas, "curve") if "c0" in mark.kind)
    assert len(band.points) == 4  # the cycle without an interval is left out
    (x, upper), (_, lower) = band.points[0], band.points[-1]
    assert line.points[0][0] == x and upper < line.points[0][1] < lower
    assert [mark.kind for mark in marks(canvas, "curve")] == ["curve reference", "curve c0"]


def test_a_band_of_few_trials_is_cut_instead_of_flattening_the_curve() -> None:
    canvas = draw_curves([curve(bands=[(-5.0, 6.0)] * 3)], "labels")
    (line,) = marks(canvas, "curve")
    (band,) = marks(canvas, "band")
    assert line.points[0][1] - line.points[-1][1] > (BASE - TOP) / 4
    assert {y for _, y in band.points} == {BASE, TOP}


def test_one_cycle_has_a_stroke_for_a_band() -> None:
    canvas = draw_curves([curve(x=[100], y=[0.4], bands=[(0.3, 0.5)])], "labels")
    assert not marks(canvas, "band")
    assert len(marks(canvas, "range")) == 1


def test_differences_have_a_zero_line_and_signs() -> None:
    canvas = draw_curves([curve(y=[0.0, 0.02, 0.05])], "labels", zero=True, least=0.02)
    assert len(marks(canvas, "zero")) == 1
    assert canvas is not None
    names = {mark.text for mark in canvas.marks if mark.shape == "text"}
    assert {"0", "+2", "+4"} <= names


@pytest.mark.parametrize("curves", [[], [curve(y=[NAN] * 3)], [curve(x=[], y=[])]])
def test_nothing_measured_draws_nothing(curves: list[Curve]) -> None:
    assert draw_curves(curves, "labels") is None


def test_a_missing_point_is_left_out() -> None:
    (line,) = marks(draw_curves([curve(y=[0.4, NAN, 0.6])], "labels"), "curve")
    assert len(line.points) == 2


def strip(value: float, interval: tuple[float, float], sign: int, reach: float = 0.1) -> Canvas:
    return interval_strip(value, interval, reach, sign)


def test_a_strip_is_right_of_the_middle_when_better() -> None:
    (dots,) = marks(strip(0.05, (0.02, 0.08), 1), "better")[1:]
    assert STRIP[0] / 2 < dots.points[0][0] < STRIP[0]
    (dots,) = marks(strip(-0.05, (-0.08, -0.02), -1), "worse")[1:]
    assert 0 < dots.points[0][0] < STRIP[0] / 2


def test_an_unclear_strip_has_a_hollow_dot() -> None:
    assert marks(strip(0.01, (-0.02, 0.04), 0), "hole")
    assert not marks(strip(0.05, (0.02, 0.08), 1), "hole")


def test_beyond_the_ends_is_an_arrow() -> None:
    canvas = strip(0.5, (0.4, 0.6), 1)
    assert not marks(canvas, "dots")
    (arrow,) = marks(canvas, "better")
    assert max(x for x, _ in arrow.points) < STRIP[0]


def test_no_difference_leaves_the_zero_line_alone() -> None:
    assert [mark.kind for mark in strip(NAN, (NAN, NAN), 0).marks] == ["zero"]
