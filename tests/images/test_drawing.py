from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lloss.images.decode import Fit, Frame, ImageSpec
from lloss.images.drawing import PALETTE, Drawing, Shape, draw
from lloss.images.thumbnail import thumbnail


def _blank(width: int = 101, height: int = 51) -> Image.Image:
    return Image.new("RGB", (width, height))


def _colored(image: Image.Image, color: int) -> np.ndarray:
    return (np.asarray(image) == PALETTE[color]).all(2)


def test_a_box_is_an_outline_where_its_shares_say() -> None:
    image = _blank()
    draw(image, Drawing((Shape("box", (0.2, 0.2, 0.6, 0.8), 1),), "a box"))
    rows, columns = np.nonzero(_colored(image, 1))
    assert (columns.min(), columns.max()) == (20, 60)
    assert (rows.min(), rows.max()) == (10, 40)
    assert not _colored(image, 1)[25, 40]  # nothing inside


def test_a_box_beyond_the_edge_or_turned_round_is_drawn_all_the_same() -> None:
    image = _blank()
    draw(image, Drawing((Shape("box", (1.4, 0.9, 0.5, -0.3), 0),), ""))
    assert _colored(image, 0)[:, 50].any()


def test_a_line_joins_its_ends_and_later_shapes_are_on_top() -> None:
    image = _blank()
    shapes = (Shape("line", (0, 0.5, 1, 0.5), 0), Shape("line", (0.5, 0, 0.5, 1), 12))
    draw(image, Drawing(shapes, ""))
    assert _colored(image, 0)[25, 20]
    assert _colored(image, 2)[25, 50]  # ten colours, then again


def test_a_thumbnail_with_a_drawing_is_larger_and_holds_it() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    drawing = Drawing((Shape("box", (0.25, 0.25, 0.75, 0.75), 3),), "a box")
    plain = Image.open(io.BytesIO(thumbnail(pixels)))
    drawn = Image.open(io.BytesIO(thumbnail(pixels, drawing)))
    assert plain.size == (96, 72)
    assert drawn.size == (192, 144)
    green = np.asarray(drawn).astype(int)[36, 96]
    assert np.abs(green - PALETTE[3]).max() < 60  # JPEG
    assert np.asarray(drawn)[72, 96].max() < 30
    tiny = Image.open(io.BytesIO(thumbnail(pixels[:8, :8], drawing)))
    assert tiny.format == "PNG"
    assert _colored(tiny, 3).any()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(60, 180), (180, 60), (77, 77)])
def test_what_was_found_in_the_input_is_in_its_place_on_the_image(
    fit: Fit, size: tuple[int, int]
) -> None:
    """A box in the middle of the image, carried into the input and back."""
    spec = ImageSpec(40, 50, fit)
    frame, box = Frame.of(size, spec), (0.45, 0.4, 0.55, 0.7)
    shares = tuple(
        (share * length * scale + offset) / side
        for share, length, scale, offset, side in zip(
            box, size[::-1] * 2, frame.scale * 2, frame.offset * 2, (50, 40, 50, 40)
        )
    )
    drawing = Drawing((Shape("box", shares, 2, "cat"),), "1 cat", 0.5)  # type: ignore[arg-type]
    (shape,) = drawing.on_image(size, spec).shapes
    assert shape.points == pytest.approx(box)
    assert (shape.color, shape.text, shape.kind) == (2, "cat", "box")


def test_a_box_in_the_padding_ends_at_the_image() -> None:
    drawing = Drawing((Shape("box", (0, 0, 1, 1), 0),), "")
    (shape,) = drawing.on_image((30, 90), ImageSpec(60, 60, "pad")).shapes
    assert shape.points == (0, 0, 1, 1)
    (shape,) = drawing.on_image((30, 90), ImageSpec(60, 60, "crop")).shapes
    assert shape.points == pytest.approx((1 / 3, 0, 2 / 3, 1))
