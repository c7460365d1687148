"""A task list as COCO's JSON, with scores as in COCO's results.

Category ids are the numbers of the model's classes, from 1. A class of a whole image is an
annotation without a box; masks are run-lengths that are not compressed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lloss.annotations.joint_names import skeleton
from lloss.annotations.task_lists.task_list import (
    PERSON,
    Mark,
    MarkedBox,
    MarkedPerson,
    MarkedPixels,
    TaskImage,
    TaskList,
    in_pixels,
    in_shares,
    marks_of,
    run_lengths,
)
from lloss.files import write_text

VISIBLE = 2  # Of a keypoint
TO_COCO = -0.5  # From the joints here to keypoints, whose first pixel has its centre at 0


def write_coco(tasks: TaskList, path: Path) -> None:
    """Write the list; its annotations of persons carry the pool's id as ``lloss_id``."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(tasks.images, 1):
        images.append(_image(number, image))
        for pick in image.picks:
            own = {"lloss_id": pick.id} if pick.region else {}
            for mark in marks_of(pick):
                reference = {"id": len(annotations) + 1, "image_id": number}
                annotations.append({**reference, **_annotation(mark, tasks.classes), **own})
    content = {
        "info": {"description": "images to label", "version": tasks.version},
        "images": images,
        "annotations": annotations,
        "categories": _categories(tasks),
    }
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def _image(number: int, image: TaskImage) -> dict[str, Any]:
    height, width = image.size
    url = {"coco_url": image.source} if "://" in image.source else {}
    return {"id": number, "file_name": image.name, "height": height, "width": width, **url}


def _categories(tasks: TaskList) -> list[dict[str, Any]]:
    if tasks.task != "pose":
        return [{"id": id, "name": name} for id, name in enumerate(tasks.classes, 1)]
    limbs = [[first + 1, second + 1] for first, second in skeleton(tasks.classes)]
    return [{"id": 1, "name": PERSON, "keypoints": list(tasks.classes), "skeleton": limbs}]


def _annotation(mark: Mark, classes: tuple[str, ...]) -> dict[str, Any]:
    category = 1 if isinstance(mark, MarkedPerson) else classes.index(mark.name) + 1
    score = {} if mark.score is None else {"score": in_shares(mark.score)}
    return {"category_id": category, **_shape(mark, classes), **score}


def _shape(mark: Mark, joints: tuple[str, ...]) -> dict[str, Any]:
    match mark:
        case MarkedBox():
            x0, y0, x1, y1 = mark.edges
            return _placed([x0, y0, in_pixels(x1 - x0), in_pixels(y1 - y0)])
        case MarkedPixels():
            runs = run_lengths(mark.pixels.ravel(order="F"))
            mask = {"size": list(mark.pixels.shape), "counts": runs}
            return {**_placed(list(mark.box), int(mark.pixels.sum())), "segmentation": mask}
        case MarkedPerson():
            return {**_placed(list(map(in_pixels, mark.box))), **_keypoints(mark, joints)}
    return {}


def _placed(box: list[Any], area: float | None = None) -> dict[str, Any]:
    area = in_pixels(box[2] * box[3]) if area is None else area
    return {"segmentation": [], "bbox": box, "area": area, "iscrowd": 0}


def _keypoints(person: MarkedPerson, joints: tuple[str, ...]) -> dict[str, Any]:
    values: list[float] = [0] * (3 * len(joints))
    for joint in person.joints:
        at = 3 * joints.index(joint.name)
        shifted = (in_pixels(joint.x + TO_COCO), in_pixels(joint.y + TO_COCO))
        values[at : at + 3] = (*shifted, VISIBLE)
    return {"keypoints": values, "num_keypoints": len(person.joints)}
