"""Convert the boxes of Label Studio's JSON export to COCO's JSON with the ids of the pool."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lloss.serve.daemon.labelstudio.json_export import (
    ExportedAnnotation,
    read_annotations,
    wrong_value,
)

from lloss.errors import LabelError
from lloss.text.clean_names import clean_name

_BOX = "rectanglelabels"

_NOT_REGIONS = frozenset(
    {"choices", "datetime", "number", "pairwise", "ranker", "rating", "relation", "taxonomy",
     "textarea"}
)  # fmt: skip
"""Types of results that describe an image or a region, and are not regions."""


def coco_of(document: Any, pool: str | None = None) -> dict[str, Any]:
    """Convert the boxes of an export (not JSON_MIN) to COCO.

    Returns:
        ``images`` (``file_name`` is the id; annotated ones without a box as well), ``categories``
        by name, and ``annotations`` with ``bbox`` in pixels: of a rotated box its upright bounds.

    Raises:
        LabelError: see :func:`.json_export.read_labels`; also when a region is not a box, or there
            is no box at all: an image must not seem to show less than was annotated.
    """
    images: list[dict[str, Any]] = []
    boxes: list[tuple[int, str, list[float]]] = []
    for id, found in read_annotations(document, pool).items():
        newest = found[-1]
        if newest.minimal:
            raise LabelError(f"{newest.where}: this is JSON_MIN; boxes need Label Studio's JSON")
        image: dict[str, Any] = {"id": len(images) + 1, "file_name": id}
        for where, item in _regions(newest):
            size = _size(item, where)
            before = (image.get("width", size[0]), image.get("height", size[1]))
            if before != size:
                what = "and height must be those of the image's other regions"
                raise wrong_value(where, "original_width", f"{what}, {before}", size)
            image["width"], image["height"] = size
            boxes.append((image["id"], *_box(item["value"], size, where)))
        images.append(image)
    if not boxes:
        raise LabelError(
            f"none of {len(images)} annotated images has a box: only rectangles with a class "
            f"({_BOX}) become COCO"
        )
    numbers = {name: at for at, name in enumerate(sorted({name for _, name, _ in boxes}), 1)}
    return {
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [
            {
                "id": at,
                "image_id": image_id,
                "category_id": numbers[name],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for at, (image_id, name, box) in enumerate(boxes, 1)
        ],
    }


def _regions(found: ExportedAnnotation) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for index, item in enumerate(found.annotation.result):
        where = f"{found.where}.result[{index}]"
        kind = item.get("type") if isinstance(item, dict) else None
        if kind in _NOT_REGIONS:
            continue
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict):
            raise wrong_value(where, "value", "must be an object", item)
        if kind != _BOX:
            raise LabelError(
                f"{where}: is of the type {kind!r}; only rectangles with a class ({_BOX}) become "
                "boxes"
            )
        yield where, item


def _size(item: Mapping[str, Any], where: str) -> tuple[float, float]:
    if item.get("image_rotation") not in (None, 0):
        raise wrong_value(where, "image_rotation", "must be 0", item["image_rotation"])
    width, height = (_number(item, key, where) for key in ("original_width", "original_height"))
    if width <= 0 or height <= 0:
        raise wrong_value(where, "original_width", "and height must be positive", (width, height))
    return width, height


def _box(
    value: Mapping[str, Any], size: tuple[float, float], where: str
) -> tuple[str, list[float]]:
    """The class, and the upright box [left, top, width, height] in pixels.

    Label Studio writes per cents of the image, and rotates a box around its upper left corner.
    """
    names = value.get(_BOX)
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise wrong_value(where, f"value.{_BOX}", "must be one class", names)
    name = clean_name(names[0])
    if not name:
        raise wrong_value(where, f"value.{_BOX}", "must be a class with a name", names)
    left, width = (_number(value, key, where) * size[0] / 100 for key in ("x", "width"))
    top, height = (_number(value, key, where) * size[1] / 100 for key in ("y", "height"))
    angle = math.radians(_number({"rotation": 0, **value}, "rotation", where))
    cosine, sine = math.cos(angle), math.sin(angle)
    corners = [(x, y) for x in (0.0, width) for y in (0.0, height)]
    across = [x * cosine - y * sine for x, y in corners]
    down = [x * sine + y * cosine for x, y in corners]
    upright = [left + min(across), top + min(down)]
    return name, [*upright, max(across) - min(across), max(down) - min(down)]


def _number(fields: Mapping[str, Any], key: str, where: str) -> float:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise wrong_value(where, key, "must be a number", value)
    return float(value)
