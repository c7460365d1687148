from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lloss.errors import ImageError, SettingsError
from lloss.images.decode import ImageSpec, decode, decode_whole, largest_of_16_bits

Encode = Callable[..., bytes]


def _grey(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values)


def _ramp(most: float, dtype: type[np.generic]) -> NDArray[np.generic]:
    """8 × 8 values from 0 to ``most``."""
    return np.linspace(0, most, 64).reshape(8, 8).astype(dtype)


def test_floats_of_0_to_1_are_scaled(encoded: Encode) -> None:
    values = _ramp(1, np.float32)
    found = decode_whole(encoded(_grey(values), "TIFF"))
    assert np.array_equal(found[:, :, 0], np.floor(values.astype(float) * 255 + 0.5))
    assert found.max() == 255


def test_floats_of_0_to_255_are_taken_as_they_are(encoded: Encode) -> None:
    values = _ramp(255, np.float32)
    found = decode_whole(encoded(_grey(values), "TIFF"))
    assert np.array_equal(found[:, :, 0], np.floor(values.astype(float) + 0.5))


def test_integers_of_32_bits_are_8_bit_values_where_they_fit(encoded: Encode) -> None:
    values = _ramp(255, np.int32)
    assert np.array_equal(decode_whole(encoded(_grey(values), "TIFF"))[:, :, 0], values)


def test_integers_of_32_bits_are_16_bit_values_where_they_fit(encoded: Encode) -> None:
    values = _ramp(65535, np.int32)
    assert np.array_equal(decode_whole(encoded(_grey(values), "TIFF"))[:, :, 0], values >> 8)


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
def test_values_of_no_known_scale_are_refused(
    encoded: Encode, values: NDArray[np.generic], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        decode_whole(encoded(_grey(values), "TIFF"))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_white_is_the_value_that_becomes_255(encoded: Encode, dtype: type[np.generic]) -> None:
    values = _ramp(4095, dtype)
    found = decode(encoded(_grey(values), "TIFF"), ImageSpec(8, 8, white=4095))
    expected = np.floor(values.astype(float) * 255 / 4095 + 0.5)
    assert np.array_equal(found[:, :, 0], expected)
    assert found.max() == 255


def test_a_value_above_white_is_refused(encoded: Encode) -> None:
    raw = encoded(_grey(_ramp(5000, np.uint16)))
    with pytest.raises(ImageError, match="values up to 5000, above the white value 4095"):
        decode(raw, ImageSpec(8, 8, white=4095))


def test_white_leaves_images_of_8_bits_alone(encoded: Encode) -> None:
    raw = encoded(_grey(_ramp(255, np.uint8)))
    assert np.array_equal(decode(raw, ImageSpec(8, 8, white=4095)), decode(raw, ImageSpec(8, 8)))


def test_a_16_bit_pgm_keeps_its_upper_8(encoded: Encode) -> None:
    values = _ramp(200, np.uint16)  # dark, but no image of 8 bits: its head says 65535
    raw = b"P5 8 8 65535\n" + values.astype(">u2").tobytes()
    assert np.array_equal(decode_whole(raw)[:, :, 0], values >> 8)


def test_a_pgm_says_itself_what_white_is(encoded: Encode) -> None:
    values = _ramp(4095, np.uint16)
    raw = b"P5 8 8 4095\n" + values.astype(">u2").tobytes()
    found = decode(raw, ImageSpec(8, 8, white=4095))
    assert np.array_equal(found, decode(raw, ImageSpec(8, 8)))
    assert abs(found[:, :, 0] - values * 255.0 / 4095).max() <= 1


def test_floats_of_a_pfm_are_scaled_as_others_are() -> None:
    values = _ramp(1, np.float32)
    raw = b"Pf\n8 8\n-1.0\n" + values[::-1].astype("<f4").tobytes()
    found = decode_whole(raw)
    assert np.array_equal(found[:, :, 0], np.floor(values.astype(float) * 255 + 0.5))


def test_floats_of_0_to_1_are_not_made_black_by_white(encoded: Encode) -> None:
    spec = ImageSpec(8, 8, white=4095)
    with pytest.raises(ImageError, match="float values up to 1, black beside the white 4095"):
        decode(encoded(_grey(_ramp(1, np.float32)), "TIFF"), spec)
    assert not decode(encoded(_grey(_ramp(0, np.float32)), "TIFF"), spec).any()


def _png_of_16_bits(values: NDArray[np.uint16]) -> bytes:
    """Written by hand: Pillow writes no colours of 16 bits."""
    height, width, _ = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def test_white_cannot_be_set_of_colours_of_16_bits() -> None:
    raw = _png_of_16_bits(np.repeat(_ramp(4095, np.uint16)[..., None], 3, 2))  # type: ignore[arg-type]
    assert decode_whole(raw).max() == 4095 >> 8  # the upper 8 bits
    with pytest.raises(ImageError, match="colours of 16 bits, whose white cannot be set"):
        decode(raw, ImageSpec(8, 8, white=4095))


def test_white_travels_with_the_spec() -> None:
    spec = ImageSpec(8, 8, "pad", 4095)
    assert ImageSpec.from_dict(spec.as_dict()) == spec
    before = {"height": 8, "width": 8, "fit": "crop"}  # as artifacts had it before there was white
    assert ImageSpec.from_dict(before) == ImageSpec(8, 8)
    with pytest.raises(SettingsError, match="white = -1"):
        ImageSpec(8, 8, white=-1)


def test_the_largest_value_is_of_16_bit_images_alone(encoded: Encode) -> None:
    assert largest_of_16_bits(encoded(_grey(_ramp(4095, np.uint16)))) == 4095
    assert largest_of_16_bits(encoded(_grey(_ramp(255, np.uint8)))) is None
    assert largest_of_16_bits(b"no image") is None
