"""Grey images of more than 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lloss.errors import ImageError
from lloss.images.decode import ImageSpec, decode, decode_whole, largest_of_16_bits

from .pixels import png_of_16_bits

Encode = Callable[..., bytes]
WHITE = ImageSpec(8, 8, white=4095)


def _ramp(most: float, dtype: type[np.generic]) -> NDArray[np.generic]:
    """8 × 8 values from 0 to ``most``."""
    return np.linspace(0, most, 64).reshape(8, 8).astype(dtype)


def _tiff(encoded: Encode, values: NDArray[np.generic]) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_upper_8(encoded: Encode, kind: str) -> None:
    values = _ramp(65535, np.uint16)
    raw = encoded(Image.fromarray(values), kind)
    assert np.array_equal(decode_whole(raw)[:, :, 0], values >> 8)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (_ramp(1, np.float32), "values of 32 bits up to 1, whose white is not known: save it with"),
        (_ramp(255, np.int32), "values of 32 bits up to 255, whose white .* train with --white"),
        (_ramp(1, np.float32) - 0.25, "values from -0.25 to 0.75"),
        (_ramp(100, np.int32) - 1, "values from -1 to 99; save it without a sign or NaN"),
        (np.full((8, 8), np.nan, np.float32), "nan"),
        (np.full((8, 8), np.inf, np.float32), "inf"),
    ],
)
def test_values_of_an_unknown_scale_are_refused(
    encoded: Encode, values: NDArray[np.generic], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        decode_whole(_tiff(encoded, values))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_white_is_the_value_that_becomes_255(encoded: Encode, dtype: type[np.generic]) -> None:
    values = _ramp(4095, dtype)
    found = decode(_tiff(encoded, values), WHITE)
    assert np.array_equal(found[:, :, 0], np.floor(values.astype(float) * 255 / 4095 + 0.5))
    with pytest.raises(ImageError, match="values up to 5000, above the white value 4095"):
        decode(_tiff(encoded, _ramp(5000, dtype)), WHITE)


def test_floats_of_0_to_1_are_not_made_black_by_white(encoded: Encode) -> None:
    with pytest.raises(ImageError, match="float values up to 1, black beside the white 4095"):
        decode(_tiff(encoded, _ramp(1, np.float32)), WHITE)
    assert not decode(_tiff(encoded, _ramp(0, np.float32)), WHITE).any()


def test_white_leaves_8_bits_alone_and_refuses_colours_of_16(encoded: Encode) -> None:
    raw = encoded(Image.fromarray(_ramp(255, np.uint8)))
    assert np.array_equal(decode(raw, WHITE), decode(raw, ImageSpec(8, 8)))
    raw = png_of_16_bits(np.repeat(_ramp(4095, np.uint16)[..., None], 3, 2))  # type: ignore[arg-type]
    assert decode_whole(raw).max() == 4095 >> 8
    with pytest.raises(ImageError, match="colours of 16 bits, whose white cannot be set"):
        decode(raw, WHITE)


def test_a_pgm_says_itself_what_white_is() -> None:
    dark = _ramp(200, np.uint16)  # not 8 bits: its head says 65535
    raw = b"P5 8 8 65535\n" + dark.astype(">u2").tobytes()
    assert np.array_equal(decode_whole(raw)[:, :, 0], dark >> 8)  # type: ignore[operator]
    values = _ramp(4095, np.uint16)
    raw = b"P5 8 8 4095\n" + values.astype(">u2").tobytes()
    found = decode(raw, WHITE)
    assert np.array_equal(found, decode(raw, ImageSpec(8, 8)))
    assert abs(found[:, :, 0] - values * 255.0 / 4095).max() <= 1


def test_the_largest_value_is_of_16_bit_images_alone(encoded: Encode) -> None:
    assert largest_of_16_bits(encoded(Image.fromarray(_ramp(4095, np.uint16)))) == 4095
    assert largest_of_16_bits(encoded(Image.fromarray(_ramp(255, np.uint8)))) is None
    assert largest_of_16_bits(b"no image") is None
