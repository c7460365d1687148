"""PASCAL VOC: one XML file an image.

Boxes are 1-based and inclusive, so that a box over the first pixel alone is 1, 1, 1, 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

from lloss.annotations.boxes import BoxedObject, ObjectList, check_box, check_class
from lloss.annotations.json_fields import FARTHEST
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import AnnotationError, Problems
from lloss.text.clean_names import clean_name

DEEPEST = 64
"""Elements inside each other; annotations need five."""

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def parse_voc(
    data: bytes, path: Path, classes: frozenset[str] | None, problems: Problems
) -> tuple[str, ObjectLabel | None]:
    """Read one XML file: the image's file name ("" if it has none), and the objects.

    The objects are None where one is broken; an error means that the whole file cannot be used.
    """
    root = _parse_xml(data, path)
    if root.tag != "annotation":
        raise AnnotationError(root.where, f"<{root.tag}> is not VOC's <annotation>")
    size = _size(root)
    objects = ObjectList()
    for element in root.children:
        if element.tag == "object":
            with objects.skipping(problems):
                objects.objects.append(_object(element, size, classes))
    named = root.child("filename")
    return named.text if named else "", objects.label(size) if objects.complete else None


def _size(root: _Element) -> tuple[int, int] | None:
    """Height and width; None where they are left out or, as some tools write, 0."""
    element = root.child("size")
    if element is None:
        return None
    height, width = (element.required(tag).number() for tag in ("height", "width"))
    if height == width == 0:
        return None
    if min(height, width) < 1 or height != int(height) or width != int(width):
        raise AnnotationError(element.where, f"an image of {width:g}×{height:g} pixels")
    return int(height), int(width)


def _object(
    element: _Element, size: tuple[int, int] | None, classes: frozenset[str] | None
) -> BoxedObject:
    named = element.required("name")
    name = clean_name(named.text)
    if not name:
        raise AnnotationError(named.where, "the object's class is empty")
    check_class(name, classes, named.where)
    box = element.required("bndbox")
    x0, y0, x1, y1 = written = [box.required(tag).number() for tag in _EDGES]
    start = 0 if x1 == x0 or y1 == y0 else 1  # a line of pixels counts as without area
    edges = (x0 - start, y0 - start, x1, y1)
    edges = check_box(edges, size, box.where, written, ", ".join(_EDGES))
    difficult = element.child("difficult")
    return BoxedObject(name, edges, difficult is not None and difficult.number() != 0)


@dataclass(slots=True)
class _Element:
    """An element, its file and line, its text, and the elements directly inside."""

    tag: str
    where: str
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def child(self, tag: str) -> _Element | None:
        return next((child for child in self.children if child.tag == tag), None)

    def required(self, tag: str) -> _Element:
        child = self.child(tag)
        if child is None:
            raise AnnotationError(self.where, f"<{self.tag}> lacks <{tag}>")
        return child

    def number(self) -> float:
        try:
            # Python's own takes "1_0" and the digits of all scripts.
            value = float(self.text if self.text.isascii() and "_" not in self.text else "")
        except ValueError:
            raise AnnotationError(
                self.where, f"<{self.tag}> {self.text!r} is not a number"
            ) from None
        if not math.isfinite(value) or abs(value) > FARTHEST:
            raise AnnotationError(self.where, f"<{self.tag}> {value:g} is far outside any image")
        return value


def _parse_xml(data: bytes, path: Path) -> _Element:
    """The outermost element.

    Entities are refused: annotations have no use for them, and attacks do.
    """
    tree = _TreeBuilder(path)
    try:
        tree.parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, "not well-formed")
        raise AnnotationError(f"{path}, line {error.lineno}", f"is not XML: {reason}") from error
    except (LookupError, ValueError) as error:  # an unknown encoding, a NUL
        raise AnnotationError(str(path), f"is not XML: {error}") from error
    return tree.top.children[0]


class _TreeBuilder:
    """Builds elements that know their lines, which those of the standard library do not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.top = _Element("", str(path))
        self._open = [self.top]
        self._texts: list[list[str]] = [[]]
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = lambda data: self._texts[-1].append(data)
        self.parser.EntityDeclHandler = self._refuse

    def _where(self) -> str:
        return f"{self.path}, line {self.parser.CurrentLineNumber}"

    def _start(self, tag: str, attributes: Any) -> None:
        if len(self._open) > DEEPEST:
            raise AnnotationError(self._where(), f"more than {DEEPEST} elements inside each other")
        element = _Element(tag, self._where())
        self._open[-1].children.append(element)
        self._open.append(element)
        self._texts.append([])

    def _end(self, tag: str) -> None:
        self._open.pop().text = "".join(self._texts.pop()).strip()

    def _refuse(self, name: str, *rest: Any) -> NoReturn:
        raise AnnotationError(self._where(), f"declares the entity {name!r}; annotations need none")
