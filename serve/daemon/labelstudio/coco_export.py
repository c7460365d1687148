"""Convert the boxes of Label Studio's JSON export to COCO's JSON with the ids of the pool."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from lloss.serve.daemon.errors import validation_problem
from lloss.serve.daemon.labelstudio.json_export import read_annotations
from lloss.serve.daemon.labelstudio.studio_annotation import StudioAnnotation
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from lloss.errors import LabelError
from lloss.text.clean_names import clean_name

_BOX = "rectanglelabels"

_NOT_REGIONS = frozenset(
    {"choices", "datetime", "number", "pairwise", "ranker", "rating", "relation", "taxonomy",
     "textarea"}
)  # fmt: skip
"""Types of results that describe an image or a region, and are not regions."""

_Number = Annotated[float, Field(strict=True, gt=-1e9, lt=1e9)]
_Length = Annotated[float, Field(strict=True, gt=0, lt=1e9)]


def _class_name(name: str) -> str:
    if not (cleaned := clean_name(name)):
        raise ValueError("a class needs a visible name")
    return cleaned


_Class = Annotated[str, AfterValidator(_class_name)]


class _Value(BaseModel):
    """Per cents of the image, and degrees around the upper left corner."""

    x: _Number
    y: _Number
    width: _Number
    height: _Number
    rotation: _Number = 0
    rectanglelabels: list[_Class] = Field(min_length=1, max_length=1)


class _Region(BaseModel):
    original_width: _Length
    original_height: _Length
    image_rotation: Literal[0] | None = None
    value: _Value

    def box(self) -> list[float]:
        """The upright box [left, top, width, height] around it, in pixels."""
        value, (across, down) = self.value, (self.original_width / 100, self.original_height / 100)
        width, height, angle = value.width * across, value.height * down, value.rotation
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = [(x, y) for x in (0.0, width) for y in (0.0, height)]
        xs = [x * cosine - y * sine for x, y in corners]
        ys = [x * sine + y * cosine for x, y in corners]
        left, top = value.x * across + min(xs), value.y * down + min(ys)
        return [left, top, max(xs) - min(xs), max(ys) - min(ys)]


def coco_of(document: Any, pool: str | None = None) -> dict[str, Any]:
    """Convert the boxes of an export to COCO.

    Returns:
        ``images`` (``file_name`` is the id; annotated ones without a box as well), ``categories``
        by name, and ``annotations`` with ``bbox`` in pixels: of a rotated box its upright bounds.

    Raises:
        LabelError: see :func:`.json_export.read_labels`; also when a region is not a box, or there
            is not a box: an image must not seem to show less than was annotated.
    """
    annotations = read_annotations(document, pool)
    images: list[dict[str, Any]] = []
    boxes: list[tuple[int, str, list[float]]] = []
    for number, (id, some) in enumerate(annotations.items(), 1):
        image: dict[str, Any] = {"id": number, "file_name": id}
        for where, region in _regions(*some[-1]):
            width, height = region.original_width, region.original_height
            before = image.setdefault("width", width), image.setdefault("height", height)
            if before != (width, height):
                raise LabelError(f"{where}: another region has the image's size {before}, this one "
                                 f"{(width, height)}")  # fmt: skip
            boxes.append((number, region.value.rectanglelabels[0], region.box()))
        images.append(image)
    if not boxes:
        raise LabelError(
            f"none of {len(images)} annotated images has a box: only rectangles with a class "
            f"({_BOX}) become COCO"
        )
    classes = sorted({name for _, name, _ in boxes})
    return {
        "images": images,
        "categories": [{"id": id, "name": name} for id, name in enumerate(classes, 1)],
        "annotations": [
            {
                "id": id,
                "image_id": image_id,
                "category_id": classes.index(name) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for id, (image_id, name, box) in enumerate(boxes, 1)
        ],
    }


def _regions(place: str, annotation: StudioAnnotation) -> Iterator[tuple[str, _Region]]:
    for index, item in enumerate(annotation.result):
        where = f"{place}.result[{index}]"
        kind = item.get("type") if isinstance(item, dict) else None
        if kind in _NOT_REGIONS:
            continue
        if kind != _BOX:
            raise LabelError(
                f"{where}: is of the type {kind!r}; only rectangles with a class ({_BOX}) become "
                "boxes"
            )
        try:
            yield where, _Region.model_validate(item)
        except ValidationError as error:
            raise LabelError(f"{where}: {validation_problem(error.errors()[0])}") from error
