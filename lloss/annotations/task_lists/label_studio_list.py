"""A task list as Label Studio's JSON of tasks with predictions, and the interface to label them in.

Places are per cents of the image. See https://labelstud.io/guide/predictions. The names of the
controls are those of Label Studio's own templates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

from lloss.annotations.task_lists.task_list import (
    PERSON,
    ListedPick,
    Mark,
    MarkedBox,
    MarkedClass,
    MarkedJoint,
    MarkedPerson,
    MarkedPixels,
    TaskImage,
    TaskList,
    in_shares,
    marks_of,
    run_lengths,
)
from lloss.files import write_text

LOCAL_FILES = "/data/local-files/?d={path}"
"""The URL by which Label Studio serves files below its ``LOCAL_FILES_DOCUMENT_ROOT``."""

_JOINT_WIDTH = 0.75  # Per cent of the image's width that a joint is drawn with

Result = dict[str, Any]


def write_label_studio(tasks: TaskList, path: Path, image_url: str = "") -> None:
    """Write the tasks, and beside them the labeling interface.

    ``image_url`` is the images' URL with ``{path}`` for the absolute path, without the first slash,
    and ``{id}`` for the image's name; by default that of Label Studio's local files, or the image's
    own URL if it has one.
    """
    entries = [_task(image, tasks, image_url) for image in tasks.images]
    write_text(interface_of(path), _interface(tasks))
    write_text(path, json.dumps(entries, ensure_ascii=False) + "\n")


def interface_of(path: Path) -> Path:
    """Return the path of the labeling interface of a list."""
    return path.with_suffix(".interface.xml")


def _task(image: TaskImage, tasks: TaskList, image_url: str) -> dict[str, Any]:
    best = image.picks[0]
    data: dict[str, Any] = {
        "image": _url(image, image_url),
        "lloss_id": best.id if best.region is None else image.name,
        "lloss_rank": best.rank,
        "lloss_score": best.score,
    }
    if best.region is not None:
        data["lloss_persons"] = [pick.id for pick in image.picks]
    predictions = [pick.prediction for pick in image.picks if pick.prediction]
    results = [part for pick in image.picks for part in _results(pick, image.size)]
    if not predictions and not results:
        return {"data": data}
    found: dict[str, Any] = {"result": results}
    if predictions:
        mean = sum(one.confidence for one in predictions) / len(predictions)
        found = {"model_version": tasks.version, "score": in_shares(mean), **found}
    return {"data": data, "predictions": [found]}


def _url(image: TaskImage, pattern: str) -> str:
    if not pattern and "://" in image.source:
        return image.source
    path, name = quote(image.source.lstrip("/")), quote(image.name)
    return (pattern or LOCAL_FILES).replace("{path}", path).replace("{id}", name)


def _results(pick: ListedPick, size: tuple[int, int]) -> Iterator[Result]:
    for number, mark in enumerate(marks_of(pick)):
        yield from _regions(mark, f"{pick.rank}-{number}", size)


def _regions(mark: Mark, id: str, size: tuple[int, int]) -> Iterator[Result]:
    """The regions of a mark, whose ids begin with ``id``."""
    match mark:
        case MarkedClass():
            yield _result(id, "choice", "choices", {"choices": [mark.name]}, mark.score)
        case MarkedBox():
            x0, y0, x1, y1 = mark.edges
            yield _rectangle(id, mark.name, (x0, y0, x1 - x0, y1 - y0), mark.score, size)
        case MarkedPixels():
            value = {"format": "rle", "rle": brush(mark.pixels), "brushlabels": [mark.name]}
            yield _result(id, "tag", "brushlabels", value, mark.score, size)
        case MarkedPerson():
            yield _rectangle(id, PERSON, mark.box, mark.score, size)
            for number, joint in enumerate(mark.joints):
                yield {**_keypoint(f"{id}-{number}", joint, size), "parentID": id}


def _rectangle(
    id: str,
    name: str,
    box: tuple[float, float, float, float],
    score: float | None,
    size: tuple[int, int],
) -> Result:
    (x, y, across, down), (height, width) = box, size
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + across, width), min(y + down, height)
    shares = x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height
    place = dict(zip(("x", "y", "width", "height"), (in_shares(100 * one) for one in shares)))
    value = {**place, "rotation": 0, "rectanglelabels": [name]}
    return _result(id, "label", "rectanglelabels", value, score, size)


def _keypoint(id: str, joint: MarkedJoint, size: tuple[int, int]) -> Result:
    height, width = size
    place = {"x": in_shares(joint.x * 100 / width), "y": in_shares(joint.y * 100 / height)}
    value = {**place, "width": _JOINT_WIDTH, "keypointlabels": [joint.name]}
    return _result(id, "kp-1", "keypointlabels", value, joint.score, size)


def _result(
    id: str,
    control: str,
    kind: str,
    value: dict[str, Any],
    score: float | None,
    size: tuple[int, int] | None = None,
) -> Result:
    place = {}
    if size is not None:
        place = {"original_width": size[1], "original_height": size[0], "image_rotation": 0}
    scored = {} if score is None else {"score": in_shares(score)}
    where = {"from_name": control, "to_name": "image", "type": kind}
    return {"id": id, **where, **place, "value": value, **scored}


def _interface(tasks: TaskList) -> str:
    view = Element("View")
    image = {"name": "image", "value": "$image", "zoom": "true"}
    SubElement(view, "Image", image)
    match tasks.task:
        case "classification":
            _add_control(view, "Choices", "choice", "Choice", tasks.classes)
        case "segmentation":
            _add_control(view, "BrushLabels", "tag", "Label", tasks.classes)
        case "pose":
            _add_control(view, "RectangleLabels", "label", "Label", (PERSON,))
            _add_control(view, "KeyPointLabels", "kp-1", "Label", tasks.classes)
        case _:
            _add_control(view, "RectangleLabels", "label", "Label", tasks.classes)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _add_control(view: Element, kind: str, name: str, choice: str, values: tuple[str, ...]) -> None:
    if values:  # else the model's labels are not known
        control = SubElement(view, kind, {"name": name, "toName": "image"})
        for value in values:
            SubElement(control, choice, {"value": value})


_RUN_BITS = (3, 4, 8, 16)  # Bits of a run's length, of which each run names one


def brush(pixels: NDArray[np.bool_]) -> list[int]:
    """Encode a mask [H, W] as Label Studio's brush: run-lengths of RGBA, in bits, as bytes.

    32 bits of the number of values, 5 of their width, 4 of each width of a length, all but the
    first less 1; then of each run a 1, 2 bits that choose the width of its length, the length less
    1, and its value, 0 or 255. (thi.ng's rle-pack.)
    """
    bits = [f"{pixels.size * 4:032b}", f"{8 - 1:05b}", *(f"{width - 1:04b}" for width in _RUN_BITS)]
    longest = 1 << _RUN_BITS[-1]
    for number, run in enumerate(run_lengths(pixels.ravel())):
        value = f"{255 * (number % 2):08b}"
        for start in range(0, run * 4, longest):
            length = min(run * 4 - start, longest) - 1
            kind = next(at for at, width in enumerate(_RUN_BITS) if length < 1 << width)
            bits.append(f"1{kind:02b}{length:0{_RUN_BITS[kind]}b}{value}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]
