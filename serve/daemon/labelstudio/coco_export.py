"""Convert the boxes of Label Studio's JSON export to COCO's JSON with the ids of the pool."""

from __future__ import annotations

from typing import Any

from lloss.serve.daemon.labelstudio.json_export import PoolTasks

from lloss.annotations.label_studio_objects import BOXES, parse_regions
from lloss.annotations.problems import Problems
from lloss.errors import LabelError


def coco_of(document: Any, pool: str | None = None) -> dict[str, Any]:
    """Convert the boxes of an export to COCO.

    Returns:
        ``images`` (``file_name`` is the id; annotated ones without a box as well), ``categories``
        by name, and ``annotations`` with ``bbox`` in pixels: of a turned box, an ellipse or a
        polygon its upright bounds.

    Raises:
        LabelError: see :func:`.json_export.read_labels`; also when a region is of another type, or
            none has a box: an image must not seem to show less than was annotated.
    """
    tasks = PoolTasks(pool)
    found = parse_regions(document, "", Problems(remedy=""), tasks.image_of)
    tasks.refuse_none(document)
    boxes = [(id, one) for id, image in enumerate(found, 1) for one in image.objects.objects]
    if not boxes:
        raise LabelError(
            f"none of {len(found)} annotated images has a box: only regions with a class "
            f"({', '.join(sorted(BOXES))}) become COCO"
        )
    classes = sorted({one.name for _, one in boxes})
    annotations = []
    for id, (image_id, one) in enumerate(boxes, 1):
        x0, y0, x1, y1 = one.box
        box, area = [x0, y0, x1 - x0, y1 - y0], (x1 - x0) * (y1 - y0)
        category = classes.index(one.name) + 1
        annotations.append(
            {"id": id, "image_id": image_id, "category_id": category, "bbox": box, "area": area,
             "iscrowd": 0}
        )  # fmt: skip
    return {
        "images": [
            {"id": id, "file_name": image.name}
            | ({"width": image.size[1], "height": image.size[0]} if image.size else {})
            for id, image in enumerate(found, 1)
        ],
        "categories": [{"id": id, "name": name} for id, name in enumerate(classes, 1)],
        "annotations": annotations,
    }
