"""LabelMe's JSON, a file an image, as the program ``labelme`` writes it beside the image.

Points are x, y in pixels. Rectangles are two corners, circles the centre and a point on the edge.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from lloss.annotations.boxes import (
    BoxedObject,
    Edges,
    ListedImage,
    box_around,
    check_box,
    note_converted,
)
from lloss.annotations.boxes import check_turned_box as check_circle
from lloss.annotations.json_fields import Name, PixelCount, Point, convert, load_json
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.text.counts import counted

_OUTLINES = ("rectangle", "polygon", "mask", "oriented_rectangle")


class _Shape(msgspec.Struct):
    label: Name
    points: Annotated[list[Point], msgspec.Meta(min_length=1)]
    shape_type: str = "polygon"


class _Image(msgspec.Struct):
    shapes: list[dict[str, Any]]
    imageHeight: PixelCount | None = None  # noqa: N815
    imageWidth: PixelCount | None = None  # noqa: N815


@dataclass
class LabelMeParser:
    """Parses the files of a folder, and counts what is not a box."""

    problems: Problems
    converted: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    unlabeled: int = 0

    def parse(self, path: Path, name: str) -> ListedImage | None:
        """The objects of an image of this name; None where only points and lines mark any."""
        try:
            document = load_json(path)
        except LabelError as error:  # of this image alone
            what = str(error).removeprefix(str(path)).lstrip(":, ")
            raise AnnotationError(str(path), what) from error
        record = convert(document, _Image, str(path))
        height, width = record.imageHeight, record.imageWidth
        size = (int(height), int(width)) if height and width else None
        image, left_out = ListedImage(str(path), name, size), 0
        for number, entry in enumerate(record.shapes):
            where = f"{path}: shapes[{number}]"
            with image.objects.skipping(self.problems):
                shape = convert(entry, _Shape, where)
                if (box := self._box(shape, size, where)) is None:
                    left_out += 1
                else:
                    image.objects.objects.append(BoxedObject(str(shape.label), box))
        if left_out and image.objects.complete and not image.objects.objects:
            self.unlabeled += 1  # an object is on it, so that it is not background
            return None
        return image

    def _box(self, shape: _Shape, size: tuple[int, int] | None, where: str) -> Edges | None:
        kind, points = shape.shape_type, shape.points
        if kind == "circle" and len(points) == 2:
            (x, y), radius = points[0], math.dist(*points)
            self.converted["circles"] += 1
            return check_circle((x - radius, y - radius, x + radius, y + radius), size, where)
        if kind not in _OUTLINES:
            self.left_out[kind] += 1
            return None
        if len(points) < 2 or (kind == "polygon" and len(points) < 3):
            raise AnnotationError(where, f"{len(points)} points are no {kind}")
        self.converted[f"{kind}s"] += kind != "rectangle"
        box = box_around(points)
        return check_box(box, size, where, box, "edges")

    def note_conversions(self, origin: str) -> None:
        """Note what became boxes, and what was left out."""
        note_converted(origin, self.converted, self.problems)
        if self.left_out:
            shown = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))
            self.problems.note(f"{origin}: left out {shown}, which have no area")
        if self.unlabeled:
            what = counted(self.unlabeled, "image has", "images have")
            self.problems.note(f"{origin}: {what} only shapes without area: not labeled yet")
