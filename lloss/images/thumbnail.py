"""Images encoded small, for people to look at, and shapes to draw over them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
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


SIDE = 96
"""Default length of a thumbnail's longer edge, in pixels."""


def thumbnail(
    pixels: NDArray[np.uint8], shapes: Sequence[Shape] | None = None, side: int = SIDE
) -> bytes:
    """Encode an image so that it is small and clear, with shapes drawn over it.

    An image of at most half the side is enlarged by a whole factor, each pixel to a crisp square,
    and becomes a PNG; any other becomes a JPEG, twice as large where shapes are given, be it none.
    ``pixels`` are uint8 [H, W, 3], ``side`` the pixels of the longer edge without shapes.
    """
    if shapes is not None:
        side *= 2
    factor = side // max(pixels.shape[:2])
    encoded = io.BytesIO()
    if factor > 1:
        image = Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1))
    else:
        image = Image.fromarray(pixels)
        scale = side / max(image.size)
        if scale < 1 or shapes is not None:
            size = [max(1, round(length * scale)) for length in image.size]
            image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    if shapes is not None:
        draw(image, shapes)
    if factor > 1:
        image.save(encoded, "PNG")
    else:
        image.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()
