"""Grey images of more than 8 bits as 8 bits, by a stated rule.

In a file of 16 bits 65535 is white. A file of 32-bit integers or floats does not say, so its values
decide, and values that fit no convention are refused: a guess would make black images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lloss.errors import ImageError

WHITE_16 = 65535

_DEEP = ("I", "F")


def is_deep(image: Image.Image) -> bool:
    """Whether a pixel of this image has more than 8 bits. Colours never do: Pillow reduces them."""
    return image.mode in _DEEP or image.mode.startswith("I;16")


def has_deep_colours(image: Image.Image) -> bool:
    """Whether an opened PNG or TIFF has colours of 16 bits; Pillow keeps their upper 8."""
    return not is_deep(image) and any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]


def to_eight_bits(image: Image.Image, white: int) -> Image.Image:
    """Convert a loaded image of mode ``I;16…``, ``I`` or ``F`` to mode ``L``.

    Args:
        image: to convert.
        white: the value that becomes 255. 0 for the rule: 16 bits keep their upper 8; 32-bit
            integers are taken as 8-bit values where none is above 255, else as 16-bit values;
            floats are scaled from 0..1 where none is above 1, else taken as 0..255.

    Raises:
        ImageError: a value that is negative, not finite, above ``white`` or outside the rule.
    """
    values = np.asarray(image)
    low, high = _range(values)
    of_pgm = image.format == "PPM" and image.mode == "I"  # its head says what white is
    if white and not of_pgm:
        if high > white:
            raise ImageError(f"has values up to {high:g}, above the white value {white}")
        if image.mode == "F" and 0 < high <= 1 < white:
            raise ImageError(f"has float values up to {high:g}, black beside the white {white}")
        return _scaled(values, 255 / white)
    if image.mode.startswith("I;16") or of_pgm or (image.mode == "I" and high > 255):
        if high > WHITE_16:
            raise ImageError(_unknown("32-bit integer", low, high))
        return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
    if high > 255:
        raise ImageError(_unknown("float", low, high))
    return _scaled(values, 255.0 if image.mode == "F" and high <= 1 else 1.0)


def _range(values: NDArray[Any]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("has pixels that are not finite numbers")
    if low < 0:
        raise ImageError(_unknown("signed", low, high))
    return low, high


def _scaled(values: NDArray[Any], factor: float) -> Image.Image:
    return Image.fromarray((values.astype(np.float64) * factor + 0.5).astype(np.uint8))


def _unknown(kind: str, low: float, high: float) -> str:
    return (
        f"has {kind} values from {low:g} to {high:g}, whose white is not known; "
        "save it with 8 or 16 bits"
    )
