"""PASCAL VOC: one XML file an image.

Boxes are 1-based and inclusive, so that a box over the first pixel alone is 1, 1, 1, 1.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from lloss.annotations.boxes import BoxedObject, ObjectList, check_box
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.number_text import parse_number
from lloss.annotations.problems import AnnotationError, Problems
from lloss.text.clean_names import clean_name

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def parse_voc(data: bytes, path: Path, problems: Problems) -> tuple[str, ObjectLabel | None]:
    """Read one XML file: the image's file name ("" if it has none), and the objects.

    The objects are None where one is broken; an error means that the whole file cannot be used.
    """
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise AnnotationError(str(path), f"is not XML: {error}") from error
    if root.tag != "annotation":
        remedy = "; give CVAT's file itself" if root.tag == "annotations" else ""
        raise AnnotationError(str(path), f"<{root.tag}> is not VOC's <annotation>{remedy}")
    size = _size(root, str(path))
    objects = ObjectList()
    for number, element in enumerate(root.findall("object"), 1):
        with objects.skipping(problems):
            objects.objects.append(_object(element, size, f"{path}: object {number}"))
    named = root.findtext("filename", "").strip()
    return named, objects.label(size) if objects.complete else None


def _size(root: ElementTree.Element, where: str) -> tuple[int, int] | None:
    """Height and width; None where they are left out or, as some tools write, 0."""
    element = root.find("size")
    if element is None:
        return None
    height, width = (_number(element, tag, where) for tag in ("height", "width"))
    if height == width == 0:
        return None
    if min(height, width) < 1 or height != int(height) or width != int(width):
        raise AnnotationError(where, f"an image of {width:g}×{height:g} pixels")
    return int(height), int(width)


def _object(element: ElementTree.Element, size: tuple[int, int] | None, where: str) -> BoxedObject:
    name = clean_name(_child(element, "name", where).text or "")
    if not name:
        raise AnnotationError(where, "its class is empty")
    box = _child(element, "bndbox", where)
    x0, y0, x1, y1 = written = [_number(box, tag, where) for tag in _EDGES]
    start = 0 if x1 == x0 or y1 == y0 else 1  # a line of pixels counts as without area
    edges = check_box((x0 - start, y0 - start, x1, y1), size, where, written, ", ".join(_EDGES))
    difficult = element.find("difficult") is not None and _number(element, "difficult", where) != 0
    return BoxedObject(name, edges, difficult)


def _child(element: ElementTree.Element, tag: str, where: str) -> ElementTree.Element:
    child = element.find(tag)
    if child is None:
        raise AnnotationError(where, f"<{element.tag}> lacks <{tag}>")
    return child


def _number(element: ElementTree.Element, tag: str, where: str) -> float:
    return parse_number(_child(element, tag, where).text or "", where, f"<{tag}>")
