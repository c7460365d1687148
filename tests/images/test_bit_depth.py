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


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        (_ramp(1, np.float32), 255),
        (_ramp(255, np.float32), 1),
        (_ramp(255, np.int32), 1),
        (_ramp(65535, np.int32), 1 / 256),
        (_ramp(65535, np.uint16), 1 / 256),
    ],
)
def test_the_rule_decides_by_type_and_largest_value(
    encoded: Encode, values: NDArray[np.generic], factor: float
) -> None:
    rounding = 0 if factor < 1 else 0.5  # upper 8 bits, or the nearest
    expected = np.floor(values.astype(float) * factor + rounding)
    assert np.array_equal(decode_whole(_tiff(encoded, values))[:, :, 0], expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (_ramp(1, np.float32) - 0.25, "signed values from -0.25 to 0.75"),
        (_ramp(3000, np.float32), "float values from 0 to 3000, whose white is not known; save"),
        (_ramp(70000, np.int32), "32-bit integer values from 0 to 70000"),
        (_ramp(100, np.int32) - 1, "signed values from -1 to 99"),
        (np.full((8, 8), np.nan, np.float32), "not finite"),
        (np.full((8, 8), np.inf, np.float32), "not finite"),
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
    floats = _ramp(1, np.float32)
    raw = b"Pf\n8 8\n-1.0\n" + floats[::-1].astype("<f4").tobytes()
    expected = np.floor(floats.astype(float) * 255 + 0.5)
    assert np.array_equal(decode_whole(raw)[:, :, 0], expected)


def test_the_largest_value_is_of_16_bit_images_alone(encoded: Encode) -> None:
    assert largest_of_16_bits(encoded(Image.fromarray(_ramp(4095, np.uint16)))) == 4095
    assert largest_of_16_bits(encoded(Image.fromarray(_ramp(255, np.uint8)))) is None
    assert largest_of_16_bits(b"no image") is None
