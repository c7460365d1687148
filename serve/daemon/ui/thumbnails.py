"""Images of pools for people: whole ones, and thumbnails."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lloss.serve.daemon.store.records import PoolRow
from numpy.typing import NDArray
from PIL import Image

from lloss.errors import ImageError
from lloss.images.decode import Raw, decode_whole, size_of
from lloss.images.thumbnail import thumbnail
from lloss.pools import Item
from lloss.pools.uri import PoolUri

SIDE = 256
"""Pixels of a thumbnail's longer edge, which is never 128 or less: a smaller image is enlarged."""

CACHED = 1024
"""Thumbnails that are kept, of some 20 kB each."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image of a format that browsers show."""

    content: bytes
    media_type: str
    etag: str  # quoted, for the header

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Picture:
        """Make a thumbnail with its tag."""
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def media_type_of(raw: bytes) -> str:
    """The format by the first bytes, if every browser shows it safely; else ""."""
    if raw.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if raw.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP" else ""


def whole_picture(item: Item, max_pixels: int) -> Picture:
    """An image as any browser shows it: its own bytes, or else PNG.

    Raises:
        ImageError: it cannot be read or decoded, or has too many pixels.
    """
    raw = item.read()
    if isinstance(raw, bytes) and (kind := media_type_of(raw)):
        return Picture.of(raw, kind)
    encoded = io.BytesIO()
    Image.fromarray(_decode(raw, max_pixels)).save(encoded, "PNG", compress_level=1)
    return Picture.of(encoded.getvalue(), "image/png")


def _decode(raw: Raw, max_pixels: int) -> NDArray[np.uint8]:
    height, width = size_of(raw)
    if height * width > max_pixels:
        raise ImageError(f"declares {width}×{height} pixels, over the limit of {max_pixels:,}")
    return decode_whole(raw)


class Thumbnails:
    """Thumbnails of images of at most ``max_pixels``; the latest are kept."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._latest: OrderedDict[tuple[PoolRow, str, str], Picture] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, pool: PoolRow, item: Item) -> Picture:
        """The thumbnail of a pool's image, made again when its file changes.

        Raises:
            ImageError: it cannot be read or decoded.
        """
        # Before it is read: a file that changes during that is read again the next time.
        file = item.file if isinstance(item.file, bytes) else PoolUri.parse(pool.uri).path
        key = pool, item.id, _file_stamp(file)
        with self._lock:
            if key in self._latest:
                self._latest.move_to_end(key)
                return self._latest[key]
        small = thumbnail(_decode(item.read(), self._max_pixels), side=SIDE)
        picture = Picture.of(small, media_type_of(small))
        with self._lock:
            self._latest[key] = picture
            if len(self._latest) > CACHED:
                self._latest.popitem(last=False)
        return picture


def _file_stamp(file: bytes | str) -> str:
    """A text that changes when a local file is replaced or rewritten; "" without a file."""
    try:
        status = Path(os.fsdecode(file)).stat()
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(status.st_mode):
        return ""
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


_CROSSED_OUT = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96" fill="none" stroke="#8c867e" '
    b'stroke-width="3"><rect x="22" y="28" width="52" height="40" rx="4"/><path d="M16 76 80 20"/>'
    b"</svg>"
)

PLACEHOLDER = Picture.of(_CROSSED_OUT, "image/svg+xml")
"""For an image that cannot be shown: smaller than any thumbnail, so that scripts know it."""
