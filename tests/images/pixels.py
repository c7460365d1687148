"""Write image files that Pillow itself cannot write."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def random_pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth_pixels(height: int, width: int) -> NDArray[np.uint8]:
    """Gradients in x, y and both, so that resampling errors at an edge stay small."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / (width - 1), y * 255 / (height - 1), (x + y) * 255 / (width + height - 2)]
    return np.stack(planes, 2).astype(np.uint8)


def png_chunk(name: bytes, data: bytes) -> bytes:
    checked = name + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_of_16_bits(values: NDArray[np.uint16]) -> bytes:
    """Colours ``[H, W, 3]`` of 16 bits."""
    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return png(width, height, 16, 2, lines)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found
