"""Decode and resize: the one code path of training and serving.

Both sides turn an encoded image or an array into the same ``uint8 [height, width, 3]``, by the
same :class:`ImageSpec`, which travels in the model.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401  they register themselves

from lloss.errors import ImageError
from lloss.images.bit_depth import has_deep_colours, is_deep, to_eight_bits
from lloss.images.input_spec import Fit as Fit
from lloss.images.input_spec import Frame as Frame
from lloss.images.input_spec import ImageSpec as ImageSpec
from lloss.images.input_spec import padded_inside


class ByteBudget:
    """Bytes that threads share; a thread that asks for more than is free waits.

    A request larger than the whole budget waits until nothing else is held, and then runs alone.
    """

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # a large request that waits is not overtaken for ever

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Hold ``count`` bytes of the budget while the block runs."""
        count = min(count, self.total)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.free >= count)
            self.free -= count
        try:
            yield
        finally:
            with self._changed:
                self.free += count
                self._changed.notify_all()


Pixels: TypeAlias = NDArray[np.uint8]
"""``uint8 [height, width, 3]``, RGB."""

Raw: TypeAlias = bytes | NDArray[Any]
"""What a pool hands over: a file's bytes, or an array ``uint8 [H, W]`` or ``[H, W, 3]``."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The only decoders ever tried: an explicit list keeps obscure parsers out of reach."""

MAX_PIXELS = 178_956_970
"""Images that declare more are refused before they are decoded (Pillow's own bomb limit)."""

Image.preinit()  # the other formats
_READERS = tuple(Image.OPEN[kind] for kind in FORMATS)
"""Tried in turn as ``Image.open`` does, but without its bomb check, which warns through state of
the whole process."""

_IN_FLIGHT = ByteBudget(1 << 30)
"""Decoded pixels that all threads of the process hold at once."""

_SMALL = 1 << 20
"""Images of fewer bytes than this are not worth counting: a thousand threads would fit."""

_PLAIN_MODES = ("1", "L", "P", "RGB")
"""Modes that take at most 8 bytes a pixel at the peak, measured: of the image and of what it is
turned and converted into (Pillow keeps RGB in 4 bytes). Others, and WebP, take up to 22."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that makes an image upright, by its EXIF orientation (EXIF 2.32, tag 0x0112)."""

_SIDEWAYS = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]
"""They exchange width and height."""

_ORIENTATION = 0x0112

_PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""What stands before an orientation in a PNG, be it before or behind the pixels."""


def decode(raw: Raw, spec: ImageSpec) -> Pixels:
    """Turn one encoded image or array into the model's input.

    Args:
        raw: an image file, or an array ``uint8 [H, W]``, ``[H, W, 1]`` or ``[H, W, 3]``.
        spec: of the model's input.

    Returns:
        ``uint8 [spec.height, spec.width, 3]``, RGB, upright by its EXIF orientation. Grey becomes
        RGB, more than 8 bits become 8 (:mod:`lloss.images.bit_depth`), transparency is dropped, an
        animation gives its first frame. ImageError where it cannot be decoded.
    """
    out = np.empty((spec.height, spec.width, 3), np.uint8)
    decode_into(raw, spec, out)
    return out


def decode_into(raw: Raw, spec: ImageSpec, out: Pixels, max_pixels: int = MAX_PIXELS) -> None:
    """:func:`decode` into ``out``, ``uint8 [spec.height, spec.width, 3]``, as a row of a batch.

    After an error it may hold anything. ``max_pixels`` are those that a file may declare.
    """
    shape = (spec.height, spec.width, 3)
    if out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out is {out.dtype} {list(out.shape)}, not uint8 {list(shape)}")
    if isinstance(raw, np.ndarray):
        array = _coloured(raw)
        if array.shape[:2] == shape[:2]:
            out[...] = array
            return
        image = _fitted(Image.fromarray(_rgb(array)), spec)
    else:
        image = _decoded(raw, lambda i: _fitted(_loaded(i, spec.white), spec), max_pixels)
    out[...] = np.asarray(image)


def decode_whole(raw: Raw) -> Pixels:
    """:func:`decode` without resizing: ``uint8 [H, W, 3]``, RGB, upright."""
    return _rgb(raw) if isinstance(raw, np.ndarray) else np.asarray(_decoded(raw, _loaded))


def decode_mask(raw: bytes) -> NDArray[np.uint8]:
    """Decode a PNG whose pixels are numbers of classes to ``uint8 [H, W]``, upright.

    They are a palette's indices, grey values of 8 bits or one bit; ImageError for other images.
    """
    return np.asarray(_decoded(raw, _mask_values)).astype(np.uint8)


def size_of(raw: Raw) -> tuple[int, int]:
    """Height and width of the upright image; of an encoded one only the header is read."""
    if isinstance(raw, np.ndarray):
        return _coloured(raw).shape[:2]
    with _decoder_errors(raw):
        image = _opened(raw)
        turned = _TURNS.get(_orientation(image, raw)) in _SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def _orientation(image: Image.Image, raw: bytes) -> Any:
    """The EXIF orientation of an image whose pixels were not read; a file may hold anything."""
    if image.format == "TIFF" and _ORIENTATION in image.tag_v2:  # type: ignore[attr-defined]
        return 1  # Pillow gives the upright size already
    if image.format == "PNG":  # Pillow reads the pixels first, to look behind them too
        if not any(mark in raw for mark in _PNG_METADATA):
            return 1
        _check_pixels(image, MAX_PIXELS)
        with _IN_FLIGHT.holding(image.width * image.height * 8):
            return image.getexif().get(_ORIENTATION, 1)
    return image.getexif().get(_ORIENTATION, 1)


def largest_of_16_bits(raw: Raw) -> int | None:
    """The largest value in a grey image of 16 bits; None for any other, or a damaged one."""
    if isinstance(raw, np.ndarray) or not raw:
        return None
    try:
        image = _opened(raw)
        if not image.mode.startswith("I;16"):
            return None
        return int(np.asarray(image).max())
    except Exception:  # decoding says what is wrong with it
        return None


def _rgb(array: NDArray[Any]) -> Pixels:
    """The array as contiguous ``uint8 [H, W, 3]``, copied only where it has to be."""
    return np.ascontiguousarray(np.broadcast_to(_coloured(array), (*array.shape[:2], 3)))


def _coloured(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The array as ``uint8 [H, W, 1]`` or ``[H, W, 3]``, not copied."""
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype}: images are uint8, 0 to 255")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ImageError(f"an array of shape {list(array.shape)}: images are [H, W] or [H, W, 3]")
    return array


def _decoded(
    raw: bytes, finish: Callable[[Image.Image], Image.Image], max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Apply ``finish`` to an opened image; every failure is an ImageError."""
    with _decoder_errors(raw):
        image = _opened(raw)
        _check_pixels(image, max_pixels)
        plain = image.mode in _PLAIN_MODES and image.format != "WEBP"
        peak = image.width * image.height * (8 if plain else 22)
        if peak < _SMALL:
            return finish(image)
        with _IN_FLIGHT.holding(peak):
            return finish(image)


def _check_pixels(image: Image.Image, most: int) -> None:
    if image.width * image.height > most:
        raise ImageError(f"declares {image.width}×{image.height} pixels, over the limit of {most}")


@contextlib.contextmanager
def _decoder_errors(raw: bytes) -> Iterator[None]:
    if not raw:
        raise ImageError("an empty file")
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot be decoded: {reason}") from error


def _opened(raw: bytes) -> Image.Image:
    """The image with its header read and its pixels not."""
    prefix, unread = raw[:16], ""
    for kind, (reader, knows) in zip(FORMATS, _READERS):
        try:
            if knows is None or knows(prefix) is True:
                return reader(io.BytesIO(raw), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            # Not of this format after all, or of a kind of it that Pillow cannot read.
            unread = f": begins as a {kind}, but {error}" if str(error) else unread
    raise ImageError(f"not an image of a known format ({', '.join(FORMATS)}){unread}")


def _loaded(image: Image.Image, white: int = 0) -> Image.Image:
    """The image with its pixels read, upright, RGB."""
    if white and has_deep_colours(image):
        raise ImageError(
            "has colours of 16 bits, whose white cannot be set; save it with 8 bits a colour"
        )
    image.load()
    if image.format == "TIFF" and image.mode == "L" and _is_signed(image):
        raise ImageError("has signed values of 8 bits, whose white is not known; save it unsigned")
    image = _turned(image, to_eight_bits(image, white) if is_deep(image) else image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_signed(tiff: Image.Image) -> bool:
    """Whether a TIFF's values are signed (TIFF 6.0, tag SampleFormat)."""
    return tiff.tag_v2.get(339) == (2,)  # type: ignore[attr-defined, no-any-return]


def _mask_values(image: Image.Image) -> Image.Image:
    if image.format != "PNG":
        raise ImageError(f"is of the format {image.format}; save the mask as PNG")
    if image.mode not in ("1", "L", "P"):
        raise ImageError(f"has the mode {image.mode}; save the mask in 8 bits, grey or palette")
    image.load()
    return _turned(image, image)


def _turned(stored: Image.Image, image: Image.Image) -> Image.Image:
    """Make ``image`` upright by the orientation of the file. Pillow turns TIFF itself."""
    turn = _TURNS.get(stored.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _fitted(image: Image.Image, spec: ImageSpec) -> Image.Image:
    width, height = image.size
    target = (spec.width, spec.height)
    if image.size == target:
        return image
    resample = _FILTERS[spec.resample]
    if spec.fit == "stretch":
        return image.resize(target, resample)
    if spec.fit == "crop":
        scale = spec.share * min(width / spec.width, height / spec.height)
        left, top = (width - spec.width * scale) / 2, (height - spec.height * scale) / 2
        box = (left, top, left + spec.width * scale, top + spec.height * scale)
        clipped = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
        return image.resize(target, resample, box=clipped)
    left, top, inner = padded_inside(image.size, spec)
    canvas = Image.new("RGB", target, (spec.fill,) * 3)
    canvas.paste(image.resize(inner, resample), (left, top))
    return canvas
