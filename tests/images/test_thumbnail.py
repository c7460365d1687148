from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lloss.images.thumbnail import thumbnail


@pytest.mark.parametrize(("side", "factor"), [(8, 12), (32, 3), (1, 96)])
def test_a_tiny_image_keeps_every_pixel_crisp(side: int, factor: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(thumbnail(pixels))))
    assert (shown == pixels.repeat(factor, 0).repeat(factor, 1)).all()


@pytest.mark.parametrize(
    ("size", "expected"), [((150, 224), (96, 64)), ((64, 64), (64, 64)), ((2000, 3), (1, 96))]
)
def test_a_larger_image_keeps_its_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    shown = Image.open(io.BytesIO(thumbnail(np.zeros((*size, 3), np.uint8))))
    assert shown.size == expected and shown.format == "JPEG"
