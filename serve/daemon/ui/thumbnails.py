"""Images of pools for people to look at: whole ones and small ones."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lloss.errors import ImageError
from lloss.images.decode import Raw, decode_whole, size_of
from lloss.images.thumbnail import thumbnail
from lloss.pools import Item

SIDE = 256
"""Pixels of a thumbnail's longer edge. It is never 128 or less: an image of half the side or less
is enlarged by a whole factor."""

ROOM = 64 << 20
"""Bytes of encoded thumbnails that are kept: some thousands."""

_RETRY = 60.0
"""Seconds after which an image that could not be shown is tried again."""

_OVERHEAD = 512
"""Bytes that an entry costs beside the picture and its id; failures are kept as well."""

_MAGIC: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda raw: raw.startswith(b"\xff\xd8\xff"), "image/jpeg"),
    (lambda raw: raw.startswith(b"\x89PNG\r\n\x1a\n"), "image/png"),
    (lambda raw: raw.startswith((b"GIF87a", b"GIF89a")), "image/gif"),
    (lambda raw: raw[:4] == b"RIFF" and raw[8:12] == b"WEBP", "image/webp"),
)
"""The formats that every browser shows, by their first bytes. Not SVG, which can hold scripts."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image.

    Attributes:
        content: the file.
        media_type: of it, one of PNG, JPEG, GIF, WEBP.
        etag: changes when the content does; quoted, as the header wants it.
    """

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Picture:
        """With its tag."""
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    when: float


@dataclass(frozen=True, slots=True)
class _Kept:
    made: Picture | _Failure
    stamp: str


def stamp_of(file: bytes | str) -> str:
    """What changes when a file of this machine is replaced or written anew; "" of no file."""
    try:
        found = Path(os.fsdecode(file)).stat()
    except (OSError, ValueError):  # gone, or no path at all
        return ""
    if not stat.S_ISREG(found.st_mode):
        return ""
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"


def media_type_of(raw: bytes) -> str:
    """What a web browser shows as it is, by its first bytes; "" for all else."""
    return next((name for knows, name in _MAGIC if knows(raw[:16])), "")


def whole(item: Item, most_pixels: int, most_bytes: int) -> Picture:
    """An image of a pool as any browser shows it: its own bytes, or else as PNG.

    Args:
        item: of the pool.
        most_pixels: that an image may declare which has to be decoded.
        most_bytes: that are handed out as they lie.

    Raises:
        ImageError: it cannot be read or decoded, or is too large.
    """
    raw = item.read()
    if isinstance(raw, bytes) and (kind := media_type_of(raw)):
        if len(raw) > most_bytes:
            raise ImageError(f"has {len(raw):,} bytes, over the limit of {most_bytes:,}")
        return Picture.of(raw, kind)
    encoded = io.BytesIO()
    Image.fromarray(_pixels(raw, most_pixels)).save(encoded, "PNG", compress_level=1)
    return Picture.of(encoded.getvalue(), "image/png")


def _pixels(raw: Raw, most: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    height, width = size_of(raw)
    if height * width > most:
        raise ImageError(f"declares {width}×{height} pixels, over the limit of {most:,}")
    return decode_whole(raw)


class Thumbnails:
    """Thumbnails, those that were looked at last kept encoded.

    One is made anew when the image's own file changed: who labels must see what is there now.

    Args:
        most_pixels: that an image may declare.
        room: bytes that are kept.
    """

    def __init__(self, most_pixels: int, room: int = ROOM) -> None:
        self.most_pixels, self.room = most_pixels, room
        self.held = 0
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, pool: str, item: Item) -> Picture:
        """The thumbnail of an image.

        Args:
            pool: what the pool's images are kept under; another for another pool of that name, and
                when the file that holds them all changed.
            item: of it.

        Raises:
            ImageError: it cannot be read or decoded.
        """
        # Before it is read: if the file changes while it is read, the next one is made anew.
        stamp = stamp_of(item.file) if isinstance(item.file, bytes) else ""
        kept = self._found((pool, item.id))
        if kept is None or kept.stamp != stamp:
            kept = _Kept(self._make(item), stamp)
            self._keep((pool, item.id), kept)
        if isinstance(kept.made, _Failure):
            raise ImageError(kept.made.reason)
        return kept.made

    def failure(self, pool: str, id: str) -> str:
        """Why an image could not be shown when it was last tried; "" if it was not, or could."""
        kept = self._found((pool, id))
        return kept.made.reason if kept and isinstance(kept.made, _Failure) else ""

    def _found(self, key: tuple[str, str]) -> _Kept | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None or (
                isinstance(found.made, _Failure) and time.monotonic() - found.made.when > _RETRY
            ):
                return None
            self._kept.move_to_end(key)
            return found

    def _make(self, item: Item) -> Picture | _Failure:
        try:
            small = thumbnail(_pixels(item.read(), self.most_pixels), side=SIDE)
            return Picture.of(small, media_type_of(small))
        except ImageError as error:
            return _Failure(str(error), time.monotonic())

    def _keep(self, key: tuple[str, str], made: _Kept) -> None:
        with self._lock:
            self.held += _cost(key, made.made) - self._cost_of(key)
            self._kept[key] = made
            while self.held > self.room and self._kept:
                oldest = next(iter(self._kept))
                self.held -= self._cost_of(oldest)
                del self._kept[oldest]

    def _cost_of(self, key: tuple[str, str]) -> int:
        return _cost(key, self._kept[key].made) if key in self._kept else 0


def _cost(key: tuple[str, str], made: Picture | _Failure) -> int:
    size = len(made.content) if isinstance(made, Picture) else len(made.reason)
    return size + 4 * sum(map(len, key)) + _OVERHEAD


def _drawn_placeholder() -> Picture:
    """A frame with a stroke through it, in a grey that shows on light and on dark."""
    image = Image.new("RGBA", (96, 96))
    pen, grey = ImageDraw.Draw(image), (140, 134, 126, 255)
    pen.rounded_rectangle((22, 28, 74, 68), 4, outline=grey, width=3)
    pen.line((16, 76, 80, 20), fill=grey, width=3)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return Picture.of(encoded.getvalue(), "image/png")


PLACEHOLDER = _drawn_placeholder()
"""Of an image that cannot be shown: 96×96, smaller than any thumbnail, so that a page can tell."""
