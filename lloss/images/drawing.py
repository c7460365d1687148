"""What a network found on an image, as shapes to draw over it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image, ImageDraw

from lloss.images.decode import Frame, ImageSpec


@dataclass(frozen=True, slots=True)
class Shape:
    """A box or a line."""

    kind: Literal["box", "line"]
    points: tuple[float, float, float, float]  # x0, y0, x1, y1; shares of the input's sides
    color: int  # the same for the same class or limb
    text: str = ""  # the class


@dataclass(frozen=True, slots=True)
class Drawing:
    """All of one image."""

    shapes: tuple[Shape, ...]  # later ones are drawn over earlier ones
    guess: str  # in words, such as "12 RBC, 1 WBC"
    confidence: float = math.nan  # of the guess, 0 to 1; NaN if unknown

    def on_image(self, size: tuple[int, int], spec: ImageSpec) -> Drawing:
        """The same in shares of an image of this height and width, and not of the input."""
        frame = Frame.of(size, spec)
        axes = [*zip((spec.width, spec.height), frame.scale, frame.offset, size[::-1])]
        shapes = []
        for shape in self.shapes:
            points = (
                min(max((share * side - offset) / scale / length, 0.0), 1.0)
                for share, (side, scale, offset, length) in zip(shape.points, axes * 2)
            )
            shapes.append(replace(shape, points=tuple(points)))  # type: ignore[arg-type]  # four
        return replace(self, shapes=tuple(shapes))


PALETTE = (
    (230, 57, 70), (29, 120, 216), (255, 183, 3), (42, 157, 95), (157, 78, 221), (251, 133, 0),
    (0, 180, 216), (214, 64, 159), (128, 185, 24), (141, 110, 99),
)  # fmt: skip
"""Colours that stay apart on photographs; they repeat after ten."""


def draw(image: Image.Image, drawing: Drawing) -> None:
    """Draw over an image, in place: boxes as outlines, lines with a dot at either end."""
    canvas = ImageDraw.Draw(image)
    width = max(1, round(max(image.size) / 96))
    for shape in drawing.shapes:
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
