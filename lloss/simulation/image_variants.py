"""Images made of an image: jitters as of neighbouring video frames, and junk that nobody labels."""

from __future__ import annotations

import functools
import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lloss.images.decode import ImageSpec, Raw, decode, size_of
from lloss.pools import Item
from lloss.pools.person_crop_pool import CropItem

ORIGINAL, JUNK = 0, -1
"""Variants of an image: itself, junk made of it, and from 1 on its jitters by their number."""

VERSION = 1  # Of what the variants look like: cached features are of one version

SHIFT = 1 / 8  # Of the side, at most, in either direction
BRIGHTNESS = 0.2  # At most, up and down
QUALITY = (40, 90)  # Of the JPEG


def content_digest(raw: Raw) -> str:
    """Identify an image by its encoded bytes, or by its pixels."""
    if isinstance(raw, bytes):
        return hashlib.sha256(raw).hexdigest()
    digest = hashlib.sha256(repr((raw.shape, str(raw.dtype))).encode())
    digest.update(np.ascontiguousarray(raw).data)
    return digest.hexdigest()


def item_digest(item: Item) -> str:
    """Identify an item's image: by its content, and of a person also by the place in it.

    ImageError where it cannot be read.
    """
    if isinstance(item, CropItem):
        return hashlib.sha256(
            f"{content_digest(item.image.read())} {item.region}".encode()
        ).hexdigest()
    return content_digest(item.read())


def variant_of(item: Item, variant: int, shifted: bool) -> Item:
    """Return the item of a variant; jitters are ``shifted`` where no label has places.

    What is random about it comes from the image's content and the number of the variant.
    """
    if variant == ORIGINAL:
        return item
    name = "junk" if variant == JUNK else f"jitter{variant}"
    return Item(f"{item.id}#{name}", functools.partial(_read, item, variant, shifted))


def _read(item: Item, variant: int, shifted: bool) -> Raw:
    raw = item.read()
    random = np.random.default_rng([int(content_digest(raw)[:16], 16), variant + 1])
    pixels = decode(raw, ImageSpec(*size_of(raw), "stretch"))
    if variant == JUNK:
        return _junk(pixels, random)
    return _jitter(pixels, random, shifted)


def _jitter(pixels: NDArray[np.uint8], random: np.random.Generator, shifted: bool) -> bytes:
    """Shift (edges repeat), change the brightness, and compress as JPEG."""
    height, width, _ = pixels.shape
    if shifted:
        most = max(1, round(min(height, width) * SHIFT))
        padded = np.pad(pixels, ((most, most), (most, most), (0, 0)), mode="edge")
        row, column = random.integers(0, 2 * most + 1, 2)
        pixels = padded[row : row + height, column : column + width]
    factor = random.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)
    bright = np.clip(pixels * factor, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(bright).save(file, "JPEG", quality=int(random.integers(*QUALITY)))
    return file.getvalue()


def _junk(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a blurred image, noise, or a crop of an eighth of the side."""
    height, width, _ = pixels.shape
    kind = random.integers(3)
    if kind == 0:
        small = Image.fromarray(pixels).resize((3, 3), Image.Resampling.BOX)
        return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
    if kind == 1:
        noise = random.normal(pixels.mean((0, 1)), 60, pixels.shape)
        return np.clip(noise, 0, 255).astype(np.uint8)
    rows, columns = max(2, height // 8), max(2, width // 8)
    row, column = random.integers(height - rows + 1), random.integers(width - columns + 1)
    crop = Image.fromarray(pixels[row : row + rows, column : column + columns])
    return np.asarray(crop.resize((width, height), Image.Resampling.BILINEAR))
