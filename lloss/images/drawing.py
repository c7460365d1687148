"""Shapes to draw over an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw


@dataclass(frozen=True, slots=True)
class Shape:
    """A box or a line."""

    kind: Literal["box", "line"]
    points: tuple[float, float, float, float]  # x0, y0, x1, y1; shares of the image's sides
    color: int  # the same for the same class or limb
    text: str = ""  # the class


PALETTE = (
    (230, 57, 70), (29, 120, 216), (255, 183, 3), (42, 157, 95), (157, 78, 221), (251, 133, 0),
    (0, 180, 216), (214, 64, 159), (128, 185, 24), (141, 110, 99),
)  # fmt: skip
"""Colours that stay apart on photographs; they repeat after ten."""


def draw(image: Image.Image, shapes: Sequence[Shape]) -> None:
    """Draw over an image, in place: boxes as outlines, lines with a dot at either end.

    Later shapes are drawn over earlier ones.
    """
    canvas = ImageDraw.Draw(image)
    width = max(1, round(max(image.size) / 96))
    for shape in shapes:
        color = PALETTE[shape.color % len(PALETTE)]
        x0, y0, x1, y1 = (
            share * (size - 1) for share, size in zip(shape.points, (*image.size, *image.size))
        )
        if shape.kind == "box":
            box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            canvas.rectangle(box, outline=color, width=width)
            continue
        canvas.line((x0, y0, x1, y1), fill=color, width=width)
        for x, y in ((x0, y0), (x1, y1)):
            canvas.ellipse((x - width, y - width, x + width, y + width), fill=color)
