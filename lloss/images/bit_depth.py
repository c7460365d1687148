"""Grey images of more than 8 bits as 8 bits, by a stated rule.

In a file of 16 bits 65535 is white, unless the user says otherwise. A file of 32-bit integers or
floats does not say what is white: without the user's word it is refused, since a guess would make
black images.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from lloss.errors import ImageError

WHITE_16 = 65535


def is_deep(image: Image.Image) -> bool:
    """Whether a pixel of this image has more than 8 bits. Colours never do: Pillow reduces them."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def has_deep_colours(image: Image.Image) -> bool:
    """Whether an opened PNG or TIFF has colours of 16 bits; Pillow keeps their upper 8."""
    return not is_deep(image) and any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]


def to_eight_bits(image: Image.Image, white: int) -> Image.Image:
    """Convert a loaded image of mode ``I;16…``, ``I`` or ``F`` to mode ``L``.

    ``white`` is the value that becomes 255; by 0 images of 16 bits keep their upper 8.

    Raises:
        ImageError: a value that is negative, not finite or above white; by 0, values of 32 bits.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise ImageError(f"has values from {low:g} to {high:g}; save it without a sign or NaN")
    if image.format == "PPM" and image.mode == "I":
        white = 0  # its head says what is white, and Pillow scales it to 16 bits
    elif image.mode in ("I", "F") and not white:
        raise ImageError(
            f"has values of 32 bits up to {high:g}, whose white is not known: save it with 8 or 16 "
            "bits, or train with --white"
        )
    if not white:
        return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
    if high > white:
        raise ImageError(f"has values up to {high:g}, above the white value {white}")
    if image.mode == "F" and 0 < high <= 1 < white:
        raise ImageError(f"has float values up to {high:g}, black beside the white {white}")
    return Image.fromarray((values.astype(np.float64) * (255 / white) + 0.5).astype(np.uint8))
