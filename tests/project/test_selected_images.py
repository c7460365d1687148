from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.images.decode import Fit, ImageSpec
from lloss.images.drawing import PALETTE, Drawing, Shape
from lloss.pools import ArrayPool
from lloss.project.selected_images import _read


def _shown(fit: Fit, drawing: Drawing | None, height: int = 300, width: int = 900) -> Any:
    images = np.full((1, height, width, 3), 7, np.uint8)
    images[:, :, width // 3 : 2 * width // 3] = 250
    (item,) = ArrayPool(images, "made up")
    spec = ImageSpec(64, 64, fit)
    picture = _read(item, spec, with_input=True)
    assert picture is not None and picture.input is not None
    assert picture.input.shape == (64, 64, 3)
    return Image.open(io.BytesIO(picture.thumbnail(drawing, spec)))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_thumbnail_is_of_the_whole_image_in_its_own_shape(fit: Fit) -> None:
    image = _shown(fit, None)
    assert image.size == (96, 32)
    row = np.asarray(image)[16, :, 0].astype(int)
    assert row[:28].max() < 40 and row[36:60].min() > 200 and row[68:].max() < 40


def test_a_box_is_drawn_where_the_object_is() -> None:
    """Around the middle third of the image, from a quarter of its height to three."""
    box = (1 / 3, 1 / 3 + 1 / 12, 2 / 3, 2 / 3 - 1 / 12)
    image = _shown("pad", Drawing((Shape("box", box, 1),), "1 cat"))
    assert image.size == (192, 64)
    pixels = np.asarray(image).astype(int)
    for y, x in ((32, 65), (32, 127), (16, 96), (47, 96)):  # the middle of each edge
        near = np.abs(pixels[y - 2 : y + 3, x - 2 : x + 3] - PALETTE[1]).sum(2)
        assert near.min() < 150, (y, x)
    assert pixels[32, 96].min() > 200  # nothing inside
