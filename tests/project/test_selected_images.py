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


@pytest.mark.parametrize(
    ("fit", "box"),
    [
        ("crop", (0.0, 0.25, 1.0, 0.75)),
        ("pad", (1 / 3, 1 / 3 + 1 / 12, 2 / 3, 2 / 3 - 1 / 12)),
        ("stretch", (1 / 3, 0.25, 2 / 3, 0.75)),
    ],
)
def test_a_box_is_drawn_where_the_object_is(
    fit: Fit, box: tuple[float, float, float, float]
) -> None:
    """Around the middle third of the image, from a quarter of its height to three."""
    image = _shown(fit, Drawing((Shape("box", box, 1),), "1 cat"))
    assert image.size == (192, 64)
    pixels = np.asarray(image).astype(int)
    for x in (65, 127):  # upright edges, at a third and at two
        near = np.abs(pixels[32, x - 2 : x + 3] - PALETTE[1]).sum(1)
        assert near.min() < 150, (fit, x)
    for y in (16, 47):
        near = np.abs(pixels[y - 2 : y + 3, 96] - PALETTE[1]).sum(1)
        assert near.min() < 150, (fit, y)
    assert pixels[32, 96].min() > 200  # nothing inside
