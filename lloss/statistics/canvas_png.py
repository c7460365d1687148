"""Drawings as one PNG, for places that show no HTML.

Pillow and the font that it brings draw it, so that it looks the same on every machine. The font has
ASCII and some of Latin-1; what it lacks becomes the nearest of these, or ``?``.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from lloss.statistics.canvas import Canvas, Mark, Point

PAPER, INK, MUTED = (255, 255, 255), (28, 27, 25), (102, 98, 91)

COLORS = {
    "c0": (194, 65, 12),
    "c1": (29, 111, 184),
    "c2": (42, 127, 79),
    "c3": (123, 63, 181),
    "c4": (168, 123, 0),
    "c5": (194, 55, 126),
    "reference": MUTED,
    "rest": (190, 185, 178),
    "grid": (228, 225, 219),
    "zero": (102, 98, 91),
    "title": INK,
}
"""Colours of the words in a mark's kind, those of the HTML reports in their light scheme."""

WIDTHS = {"grid": 1.0, "zero": 1.0, "range": 1.5, "curve": 2.0, "rest": 1.2}
_DASH = 5.0, 3.0  # of the reference's curve
_DOTS = {"rest": 1.2}  # radius, _DOT for the others
_DOT = 3.0
_TEXT, _TITLE = 11.5, 14.0  # sizes
_BAND = 38  # of 255, how much of its colour a band has
_OVER = 2  # drawn so many times larger and scaled down, which smooths edges

_SPELLED = {"−": "-", "–": "-", "×": "x", "≥": ">=", "≤": "<=", "\u2009": " ", "\u00a0": " "}


@dataclass(frozen=True)
class Placed:
    """A drawing with its upper left corner on the sheet, in units."""

    canvas: Canvas
    x: float
    y: float


def png(drawings: Sequence[Placed], width: float, height: float, scale: int = 2) -> bytes:
    """Draw on a white sheet of ``width`` × ``height`` units of ``scale`` pixels each."""
    unit = scale * _OVER
    size = round(width * unit), round(height * unit)
    sheet = Image.new("RGB", size, PAPER)
    brush = _Brush(sheet, unit)
    for drawing in drawings:
        for mark in drawing.canvas.marks:
            brush.draw(mark, (drawing.x, drawing.y))
    sheet = sheet.resize((size[0] // _OVER, size[1] // _OVER), Image.Resampling.BOX)
    file = io.BytesIO()
    sheet.save(file, "png")
    return file.getvalue()


class _Brush:
    def __init__(self, sheet: Image.Image, unit: int) -> None:
        # With an alpha channel, areas let through what is below them.
        self.draws, self.unit = ImageDraw.Draw(sheet, "RGBA"), unit
        self.fonts = {size: ImageFont.load_default(size * unit) for size in (_TEXT, _TITLE)}

    def draw(self, mark: Mark, corner: Point) -> None:
        points = [
            ((x + corner[0]) * self.unit, (y + corner[1]) * self.unit) for x, y in mark.points
        ]
        words = mark.kind.split()
        color = next((COLORS[word] for word in words if word in COLORS), MUTED)
        if mark.shape == "text":
            font = self.fonts[_TITLE if "title" in words else _TEXT]
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
            self.draws.text(points[0], writable(mark.text), color, font, anchor)
        elif mark.shape == "area":
            self.draws.polygon(points, (*color, _BAND))
        elif mark.shape == "dots":
            self.dots(points, color, next((_DOTS[word] for word in words if word in _DOTS), _DOT))
        else:
            width = next((WIDTHS[word] for word in words if word in WIDTHS), 1.0)
            for stroke in self.strokes(points, "reference" in words):
                self.draws.line(stroke, color, round(width * self.unit), joint="curve")

    def dots(self, points: Sequence[Point], color: tuple[int, int, int], radius: float) -> None:
        reach = radius * self.unit
        for x, y in points:
            self.draws.ellipse((x - reach, y - reach, x + reach, y + reach), color)

    def strokes(self, points: Sequence[Point], dashed: bool) -> list[list[Point]]:
        """The line, or its dashes."""
        if not dashed:
            return [list(points)]
        dash, gap = (length * self.unit for length in _DASH)
        found: list[list[Point]] = []
        left, drawing = dash, True
        for (x, y), (x1, y1) in pairwise(points):
            length = ((x1 - x) ** 2 + (y1 - y) ** 2) ** 0.5
            at = 0.0
            while at < length:
                step = min(left, length - at)
                if drawing:
                    ends = (at / length, (at + step) / length)
                    found.append([(x + s * (x1 - x), y + s * (y1 - y)) for s in ends])
                at, left = at + step, left - step
                if left <= 1e-9:
                    drawing = not drawing
                    left = dash if drawing else gap
        return found


def writable(text: str) -> str:
    """The text in characters that the font has."""
    for char, spelled in _SPELLED.items():
        text = text.replace(char, spelled)
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if c in "±°·…" or " " <= c <= "~" else "?" for c in plain)


def text_width(text: str, title: bool = False) -> float:
    """The width of a text in units."""
    size = _TITLE if title else _TEXT
    return float(ImageFont.load_default(size).getlength(writable(text)))
