from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lloss.images.thumbnail import PALETTE, Shape, draw, thumbnail


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


def _blank(width: int = 101, height: int = 51) -> Image.Image:
    return Image.new("RGB", (width, height))


def _colored(image: Image.Image, color: int) -> np.ndarray:
    return (np.asarray(image) == PALETTE[color]).all(2)


def test_a_box_is_an_outline_where_its_shares_say() -> None:
    image = _blank()
    draw(image, [Shape("box", (0.2, 0.2, 0.6, 0.8), 1)])
    rows, columns = np.nonzero(_colored(image, 1))
    assert (columns.min(), columns.max()) == (20, 60)
    assert (rows.min(), rows.max()) == (10, 40)
    assert not _colored(image, 1)[25, 40]  # nothing inside


def test_a_box_beyond_the_edge_or_turned_round_is_drawn_all_the_same() -> None:
    image = _blank()
    draw(image, [Shape("box", (1.4, 0.9, 0.5, -0.3), 0)])
    assert _colored(image, 0)[:, 50].any()


def test_a_line_joins_its_ends_and_later_shapes_are_on_top() -> None:
    image = _blank()
    shapes = (Shape("line", (0, 0.5, 1, 0.5), 0), Shape("line", (0.5, 0, 0.5, 1), 12))
    draw(image, shapes)
    assert _colored(image, 0)[25, 20]
    assert _colored(image, 2)[25, 50]  # ten colours, then again


def test_a_thumbnail_with_shapes_is_larger_and_shows_them() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    shapes = [Shape("box", (0.25, 0.25, 0.75, 0.75), 3)]
    plain = Image.open(io.BytesIO(thumbnail(pixels)))
    drawn = Image.open(io.BytesIO(thumbnail(pixels, shapes)))
    assert plain.size == (96, 72)
    assert drawn.size == (192, 144)
    green = np.asarray(drawn).astype(int)[36, 96]
    assert np.abs(green - PALETTE[3]).max() < 60  # JPEG
    assert np.asarray(drawn)[72, 96].max() < 30
    tiny = Image.open(io.BytesIO(thumbnail(pixels[:8, :8], shapes)))
    assert tiny.format == "PNG"
    assert _colored(tiny, 3).any()
