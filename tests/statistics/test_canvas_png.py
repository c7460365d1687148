from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lloss.statistics.canvas import Canvas
from lloss.statistics.canvas_png import COLORS, PAPER, Placed, png, text_width, writable


def pixels(canvas: Canvas, x: float = 0, y: float = 0) -> np.ndarray:
    with Image.open(io.BytesIO(png([Placed(canvas, x, y)], 40, 20))) as image:
        assert (image.size, image.mode) == ((80, 40), "RGB")
        return np.asarray(image).copy()


def test_a_mark_has_its_colour_where_it_is_placed() -> None:
    canvas = Canvas(40, 20)
    canvas.dots([(5, 5)], "dots c1")
    found = pixels(canvas, 10, 3)
    assert tuple(found[16, 30]) == COLORS["c1"]
    assert tuple(found[2, 2]) == PAPER


def test_a_band_lets_through_what_is_below() -> None:
    canvas = Canvas(40, 20)
    canvas.line([(0, 10), (40, 10)], "zero")
    canvas.area([(0, 0), (40, 0), (40, 20), (0, 20)], "band c2")
    found = pixels(canvas)
    beside, below = found[5, 40], found[20, 40]
    assert (beside > 200).all() and tuple(beside) != PAPER
    assert (below < beside).all()


def test_the_reference_is_dashed_and_others_are_not() -> None:
    for color, whole in (("reference", False), ("c0", True)):
        canvas = Canvas(40, 20)
        canvas.line([(0, 10), (20, 10), (40, 10)], f"curve {color}")
        row = pixels(canvas)[19, 2:78]
        assert bool((row != 255).any(1).all()) is whole
        assert (row != 255).any()


def test_text_is_drawn_and_measured() -> None:
    canvas = Canvas(40, 20)
    canvas.text((0, 15), "abc", "title")
    assert (pixels(canvas) < 128).any()
    assert 0 < text_width("abc") < text_width("abc", title=True) < text_width("abcdef", True)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("−0.4 × 2", "-0.4 x 2"),
        ("naïve…", "naive..."),
        ("日本", "??"),
        ("a\nb", "a?b"),
        ("±1", "±1"),
    ],
)
def test_the_font_s_characters_are_kept_and_others_spelled(text: str, drawn: str) -> None:
    assert writable(text) == drawn


def test_the_same_drawing_gives_the_same_bytes() -> None:
    canvas = Canvas(40, 20)
    canvas.text((0, 15), "abc")
    assert png([Placed(canvas, 0, 0)], 40, 20) == png([Placed(canvas, 0, 0)], 40, 20)
