"""Images of pools for people: whole ones, and thumbnails."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lloss.errors import ImageError
from lloss.images.decode import Raw, decode_whole, size_of
from lloss.images.thumbnail import thumbnail
from lloss.pools import Item

SIDE = 256
"""Pixels of a thumbnail's longer edge, which is never 128 or less: a smaller image is enlarged."""

CACHE_BYTES = 64 << 20
"""Encoded thumbnails that are kept: some thousands."""

_RETRY_SECONDS = 60.0
"""Until an image that could not be shown is read again."""

_OVERHEAD = 512
"""Bytes that an entry costs beside the picture and its id."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image: PNG, JPEG, GIF or WEBP."""

    content: bytes
    media_type: str
    etag: str  # quoted, for the header

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Picture:
        """With its tag."""
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@dataclass(frozen=True, slots=True)
class _Entry:
    picture: Picture | None
    reason: str  # why there is no picture
    stamp: str
    time: float

    def cost(self, key: tuple[str, str]) -> int:
        size = len(self.picture.content) if self.picture else len(self.reason)
        return size + 4 * sum(map(len, key)) + _OVERHEAD


def file_stamp(file: bytes | str) -> str:
    """A text that changes when a local file is replaced or rewritten; "" without a file."""
    try:
        status = Path(os.fsdecode(file)).stat()
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(status.st_mode):
        return ""
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


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
    """A cache of thumbnails, which are made again when the image's own file changed.

    Args:
        max_pixels: that an image may declare.
        capacity: bytes that are kept, the least recently used dropped first.
    """

    def __init__(self, max_pixels: int, capacity: int = CACHE_BYTES) -> None:
        self._max_pixels, self._capacity = max_pixels, capacity
        self.size = 0
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, pool: str, item: Item) -> Picture:
        """The thumbnail of an image.

        Args:
            pool: identifies the pool, and changes when a file with all its images does.
            item: of the pool.

        Raises:
            ImageError: it cannot be read or decoded.
        """
        # Before it is read: a file that changes during that is read again the next time.
        stamp = file_stamp(item.file) if isinstance(item.file, bytes) else ""
        entry = self._find((pool, item.id))
        if entry is None or entry.stamp != stamp:
            entry = self._make(item, stamp)
            self._store((pool, item.id), entry)
        if entry.picture is None:
            raise ImageError(entry.reason)
        return entry.picture

    def failure(self, pool: str, id: str) -> str:
        """Why an image could not be shown lately; "" when it could, or nobody tried."""
        entry = self._find((pool, id))
        return entry.reason if entry else ""

    def _find(self, key: tuple[str, str]) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (entry.reason and time.monotonic() - entry.time > _RETRY_SECONDS):
                return None
            self._entries.move_to_end(key)
            return entry

    def _make(self, item: Item, stamp: str) -> _Entry:
        try:
            small = thumbnail(_decode(item.read(), self._max_pixels), side=SIDE)
        except ImageError as error:
            return _Entry(None, str(error), stamp, time.monotonic())
        return _Entry(Picture.of(small, media_type_of(small)), "", stamp, 0)

    def _store(self, key: tuple[str, str], entry: _Entry) -> None:
        with self._lock:
            if key in self._entries:
                self.size -= self._entries.pop(key).cost(key)
            self._entries[key] = entry
            self.size += entry.cost(key)
            while self.size > self._capacity and self._entries:
                oldest, dropped = self._entries.popitem(last=False)
                self.size -= dropped.cost(oldest)


def _placeholder() -> Picture:
    """A crossed-out frame, in a grey that shows on light and on dark."""
    image = Image.new("RGBA", (96, 96))
    pen, grey = ImageDraw.Draw(image), (140, 134, 126, 255)
    pen.rounded_rectangle((22, 28, 74, 68), 4, outline=grey, width=3)
    pen.line((16, 76, 80, 20), fill=grey, width=3)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return Picture.of(encoded.getvalue(), "image/png")


PLACEHOLDER = _placeholder()
"""For an image that cannot be shown: 96×96, smaller than any thumbnail, so that scripts know it."""
