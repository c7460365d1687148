"""A task list as CVAT's XML "for images 1.1".

Coordinates are edges in pixels; masks are run-lengths of the rows in their box. The format has no
scores. See https://docs.cvat.ai/docs/manual/advanced/xml_format.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from lloss.annotations.task_lists.task_list import (
    PERSON,
    Mark,
    MarkedBox,
    MarkedClass,
    MarkedPerson,
    MarkedPixels,
    TaskImage,
    TaskList,
    in_pixels,
    marks_of,
    run_lengths,
)
from lloss.errors import LabelError
from lloss.files import write_text
from lloss.text.csv_table import shortened

_KINDS = {"classification": "tag", "detection": "rectangle", "segmentation": "mask"}
"""CVAT's types of a label, by the task of the model."""

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

_BY_PREDICTION = {"source": "auto"}


def write_cvat(tasks: TaskList, path: Path) -> None:
    """Write the list; images are in the order of their best pick's rank.

    A name that XML cannot hold is a LabelError.
    """
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    _add_labels(SubElement(SubElement(root, "meta"), "task"), tasks)
    for number, image in enumerate(tasks.images):
        _add_image(root, number, image, tasks.classes)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    write_text(path, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


def _add_labels(task: Element, tasks: TaskList) -> None:
    labels = SubElement(task, "labels")
    persons = tasks.task == "pose"
    for name in (PERSON,) if persons else tasks.classes:
        _add_label(labels, name, "skeleton" if persons else _KINDS.get(tasks.task, "any"))
    for name in tasks.classes if persons else ():
        SubElement(_add_label(labels, name, "points"), "parent").text = PERSON


def _add_label(labels: Element, name: str, kind: str) -> Element:
    label = SubElement(labels, "label")
    SubElement(label, "name").text = name
    SubElement(label, "type").text = kind
    SubElement(label, "attributes")
    return label


def _add_image(root: Element, number: int, image: TaskImage, joints: tuple[str, ...]) -> None:
    height, width = image.size
    if _NOT_XML.search(image.name):
        raise LabelError(
            f"{shortened(image.name)!r} has a control character in it, which XML cannot hold: "
            "rename it, or choose another format"
        )
    place = {"id": str(number), "name": image.name, "width": str(width), "height": str(height)}
    element = SubElement(root, "image", place)
    for pick in image.picks:
        for mark in marks_of(pick):
            _add_mark(element, mark, joints)


def _add_mark(image: Element, mark: Mark, joints: tuple[str, ...]) -> None:
    flat = {**_BY_PREDICTION, "occluded": "0", "z_order": "0"}
    match mark:
        case MarkedClass():
            SubElement(image, "tag", {"label": mark.name, **_BY_PREDICTION})
        case MarkedBox():
            edges = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, mark.edges)))
            SubElement(image, "box", {"label": mark.name, **flat, **edges})
        case MarkedPixels():
            SubElement(image, "mask", {"label": mark.name, **flat, **_run_lengths(mark)})
        case MarkedPerson() if joints:
            _add_skeleton(image, mark, joints)


def _run_lengths(mark: MarkedPixels) -> dict[str, str]:
    left, top, width, height = mark.box
    inside = mark.pixels[top : top + height, left : left + width]
    box = {"left": left, "top": top, "width": width, "height": height}
    runs = ", ".join(map(str, run_lengths(inside.ravel())))
    return {"rle": runs, **{key: str(value) for key, value in box.items()}}


def _add_skeleton(image: Element, person: MarkedPerson, joints: tuple[str, ...]) -> None:
    """All joints are in it; those that were not found are outside, in the middle of the box."""
    skeleton = SubElement(image, "skeleton", {"label": PERSON, **_BY_PREDICTION, "z_order": "0"})
    x, y, width, height = person.box
    found = {joint.name: (joint.x, joint.y) for joint in person.joints}
    for name in joints:
        place = found.get(name, (x + width / 2, y + height / 2))
        attributes = {
            "label": name,
            **_BY_PREDICTION,
            "outside": str(int(name not in found)),
            "occluded": "0",
            "points": ",".join(str(in_pixels(value)) for value in place),
        }
        SubElement(skeleton, "points", attributes)
