"""Masks of Label Studio's brushes, polygons and rectangles: a class for each pixel.

Pixels that nothing marks are of the class ``background``; of regions that overlap the later counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lloss.annotations.boxes import ListedImage
from lloss.annotations.json_fields import convert
from lloss.annotations.label_studio import read_annotations
from lloss.annotations.label_studio_regions import (
    Polygon,
    Rectangle,
    Region,
    class_of,
    regions_of,
    sized_region,
)
from lloss.annotations.problems import AnnotationError, Problems
from lloss.text.counts import counted

BACKGROUND = "background"

_Mask = NDArray[np.bool_]

_BRUSH = "brushlabels"
_OUTLINES: dict[str, type[Polygon | Rectangle]] = {
    "polygonlabels": Polygon,
    "rectanglelabels": Rectangle,
}


class StudioMask(NamedTuple):
    """The mask of an image: the number of each pixel's class in ``classes``."""

    image: str
    pixels: NDArray[np.uint8]  # [H, W]
    classes: tuple[str, ...]


class _Brush(msgspec.Struct):
    rle: list[Annotated[int, msgspec.Meta(ge=0, le=255)]]


def parse_masks(document: Any, origin: str, problems: Problems) -> Iterator[StudioMask]:
    """Read the masks of an export's annotated images.

    An image without a region, whose size nothing says, is not labeled yet; a note counts those.
    """
    without = 0
    for name, some in read_annotations(document, origin, problems).items():
        image = ListedImage(some[-1].where, name, None)
        with problems.skipping(origin, name):
            layers = []
            for where, kind, item in regions_of(some[-1]):
                if kind != _BRUSH and kind not in _OUTLINES:
                    known = ", ".join((_BRUSH, *_OUTLINES))
                    raise AnnotationError(where, f"is of the type {kind!r}; masks are {known}")
                region = sized_region(item, image, where)
                layers.append((class_of(region, kind, where), _pixels(region, kind, where)))
            without += not layers
            if layers:
                yield _merged(name, layers)
    if without:
        what = counted(without, "annotated image has", "annotated images have")
        problems.note(f"{origin}: {what} no region: not labeled yet")


def _merged(image: str, layers: list[tuple[str, _Mask]]) -> StudioMask:
    classes = (BACKGROUND, *sorted({name for name, _ in layers} - {BACKGROUND}))
    pixels = np.zeros(layers[0][1].shape, np.uint8)
    for name, mask in layers:
        pixels[mask] = classes.index(name)
    return StudioMask(image, pixels, classes)


def _pixels(region: Region, kind: str, where: str) -> _Mask:
    """The pixels that a region marks, [H, W]."""
    width, height = int(region.original_width), int(region.original_height)
    if kind == _BRUSH:
        values = unpack(convert(region.value, _Brush, f"{where}.value").rle, f"{where}.value.rle")
        if values.size != width * height * 4:
            what = f"{values.size} values, not 4 for each of {width}×{height} pixels"
            raise AnnotationError(f"{where}.value.rle", what)
        return values.reshape(height, width, 4)[:, :, 3] > 0
    shape = convert(region.value, _OUTLINES[kind], f"{where}.value")
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon(shape.corners(width / 100, height / 100), fill=1)
    return np.asarray(canvas)


def unpack(packed: list[int], where: str) -> NDArray[np.uint8]:
    """Decode run-lengths, in bits (thi.ng's rle-pack).

    32 bits of the number of values, 5 of their width, 4 of each of four widths of a length, all
    but the first less 1; then of each run a bit, 2 bits that choose the width of its length, the
    length less 1, and behind a bit of 1 its one value, behind 0 its values.
    """
    bits = np.unpackbits(np.array(packed, np.uint8))
    text, place = bits.tobytes().translate(_DIGITS).decode(), 0

    def take(width: int) -> int:
        nonlocal place
        place += width
        return int(text[place - width : place], 2)

    try:
        count, width = take(32), take(5) + 1
        widths = [take(4) + 1 for _ in range(4)]
        if width != 8 or count > 8 * len(packed) << 16:
            raise ValueError
        values, done = np.zeros(count, np.uint8), 0
        while done < count:
            same, length = take(1), take(widths[take(2)]) + 1
            if same:
                values[done : done + length] = take(8)
            else:
                values[done : done + length] = np.packbits(bits[place : place + 8 * length])
                place += 8 * length
            done += length
    except ValueError:
        raise AnnotationError(where, "is not a brush's run-length encoding") from None
    return values


_DIGITS = bytes.maketrans(b"\0\1", b"01")
