"""Images encoded small, for people to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lloss.images.drawing import Shape, draw

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
