"""A short cut for plain JPEG files that have the model's size already, by the extra ``fast``.

simplejpeg decodes such a file straight into its place in the batch, in half of Pillow's time or
less. (One that has to be resized gains next to nothing, so it is left to Pillow.) The pixels must
not depend on what is installed: simplejpeg is used only where it agrees with Pillow on every kind
of sampling, files with anything unusual in them go to Pillow, and so does every file that
simplejpeg has the least complaint about.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_START, _SCAN = b"\xff\xd8\xff", 0xDA
_FRAMES = (0xC0, 0xC2)
"""Baseline and progressive frames (ITU-T T.81, table B.1)."""

_JFIF = 0xE0
_HARMLESS = (_JFIF, 0xC4, 0xDB, 0xDD, 0xFE)
"""JFIF, Huffman and quantization tables, restart interval, comment. All other segments can mean a
rotation (EXIF) or other colours (Adobe)."""


def decode_plain_jpeg_into(raw: bytes, out: NDArray[np.uint8]) -> bool:
    """Decode a plain JPEG file of the very size of ``out``, if the extra ``fast`` is there.

    Args:
        raw: any bytes.
        out: uint8 [H, W, 3], contiguous.

    Returns:
        Whether it was done. If not, Pillow has to judge the file, and ``out`` may hold anything.
    """
    if not raw.startswith(_START):
        return False
    decode = _decoder()
    if decode is None or not _is_plain(raw, *out.shape[:2]):
        return False
    try:
        decode(raw, "RGB", buffer=out)
    except ValueError:  # damage, even if it could be overlooked
        return False
    return True


def _is_plain(raw: bytes, height: int, width: int) -> bool:
    """Whether all of the header is known and the image is 8 bits, grey or YCbCr, of this size."""
    at, sized = 2, False
    try:
        while raw[at + 1] != _SCAN:
            start, marker, length = struct.unpack_from(">BBH", raw, at)
            if start != 0xFF or length < 2:
                return False
            if marker in _FRAMES and not sized:
                bits, *size, layers = struct.unpack_from(">BHHB", raw, at + 4)
                sized = bits == 8 and size == [height, width] and layers in (1, 3)
                if not sized:
                    return False
            elif marker not in _HARMLESS or (marker == _JFIF and length < 16):
                return False
            at += 2 + length
        return sized and raw[at] == 0xFF
    except (IndexError, struct.error):
        return False


@functools.cache
def _decoder() -> Callable[..., Any] | None:
    """simplejpeg's decoder, if it is installed and gives Pillow's pixels."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg if _agrees_with_pillow(decode_jpeg) else None


def _agrees_with_pillow(decode_jpeg: Callable[..., Any]) -> bool:
    """Both bring a libjpeg-turbo of their own; another build may round or upsample otherwise."""
    picture = np.random.default_rng(0).integers(0, 256, (35, 45, 3), dtype=np.uint8)
    picture[8:24, 8:24] //= 8
    for sampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        for quality, progressive in ((30, False), (92, True)):
            file = io.BytesIO()
            Image.fromarray(picture).save(
                file, "JPEG", quality=quality, subsampling=sampling, progressive=progressive
            )
            with Image.open(file) as image:
                expected = np.asarray(image)
            try:
                found = decode_jpeg(file.getvalue(), "RGB")
            except ValueError:
                return False
            if not np.array_equal(found, expected):
                return False
    return True
