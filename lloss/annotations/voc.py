"""PASCAL VOC: one XML file an image.

Boxes are 1-based and inclusive, so that a box over the first pixel alone is 1, 1, 1, 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

from lloss.annotations.boxes import Found, check_class, checked, label_of
from lloss.annotations.json_fields import BrokenError, NothingMarkedError, Whole, within_reach
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import Problems
from lloss.text.clean_names import clean_name


def read_annotation(
    data: bytes, path: Path, classes: frozenset[str] | None, problems: Problems
) -> tuple[str, ObjectLabel | None]:
    """One XML file.

    Args:
        data: its bytes.
        path: of the file, for messages.
        classes: the names that are allowed; None for any.
        problems: broken objects go there.

    Returns:
        The image's file name as the annotation has it ("" if it has none), and the objects; None
        if one of them is broken.

    Raises:
        BrokenError: the whole file cannot be used.
    """
    root = read_xml(data, path)
    if root.tag != "annotation":
        raise BrokenError(root.where, f"<{root.tag}> is no VOC annotation, that is <annotation>")
    size = _size(root)
    objects: list[Found] = []
    whole = Whole()
    for element in root.children:
        if element.tag == "object":
            with whole.leaving_out(problems):
                objects.append(_object(element, size, classes))
    named = root.child("filename")
    return named.text if named else "", label_of(objects, size) if whole.yes else None


def _size(root: Element) -> tuple[int, int] | None:
    """Height and width; None where they are left out or, as some tools write, 0."""
    element = root.child("size")
    if element is None:
        return None
    height, width = (_number(element.needed(tag)) for tag in ("height", "width"))
    if height == width == 0:
        return None
    if min(height, width) < 1 or height != int(height) or width != int(width):
        raise BrokenError(element.where, f"an image of {width:g}×{height:g} pixels")
    return int(height), int(width)


def _object(
    element: Element, size: tuple[int, int] | None, classes: frozenset[str] | None
) -> Found:
    named = element.needed("name")
    name = clean_name(named.text)
    if not name:
        raise BrokenError(named.where, "the object's class is empty")
    check_class(name, classes, named.where)
    box = element.needed("bndbox")
    tags = ("xmin", "ymin", "xmax", "ymax")
    x0, y0, x1, y1 = (_number(box.needed(tag)) for tag in tags)
    shown = f"{x0:g}, {y0:g}, {x1:g}, {y1:g} ({', '.join(tags)})"
    if x1 >= x0 and y1 >= y0 and (x1 == x0 or y1 == y0):  # a line of pixels is a slip too
        raise NothingMarkedError(box.where, f"the box {shown} has no area")
    edges = checked((x0 - 1, y0 - 1, x1, y1), size, box.where, shown)
    difficult = element.child("difficult")
    return Found(name, edges, difficult is not None and _number(difficult) != 0, False)


def _number(element: Element) -> float:
    text = element.text
    try:
        # Python's own takes "1_0" and the digits of all scripts.
        value = float(text if text.isascii() and "_" not in text else "")
    except ValueError:
        raise BrokenError(element.where, f"<{element.tag}> {text!r} is no number") from None
    return within_reach(value, element.where)


DEEPEST = 64
"""Elements inside each other; annotations need five."""


@dataclass(slots=True)
class Element:
    """An element of a file.

    Attributes:
        tag: its name.
        where: file and line.
        text: directly inside, without white space around.
        children: the elements directly inside, in order.
    """

    tag: str
    where: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def child(self, tag: str) -> Element | None:
        """The first element of this name directly inside."""
        return next((child for child in self.children if child.tag == tag), None)

    def needed(self, tag: str) -> Element:
        """The same, which has to be there.

        Raises:
            BrokenError: it is not.
        """
        child = self.child(tag)
        if child is None:
            raise BrokenError(self.where, f"<{self.tag}> lacks <{tag}>")
        return child


def read_xml(data: bytes, path: Path) -> Element:
    """The outermost element of a file.

    Raises:
        BrokenError: it cannot be read, is no XML, or declares entities (which annotations have no
            use for, and attacks do).
    """
    tree = _Tree(path)
    try:
        tree.parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, "not well-formed")
        raise BrokenError(f"{path}, line {error.lineno}", f"is no XML: {reason}") from error
    except (LookupError, ValueError) as error:  # an unknown encoding, a NUL
        raise BrokenError(str(path), f"is no XML: {error}") from error
    return tree.top.children[0]


class _Tree:
    """Makes elements of what the parser reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.top = Element("", str(path))
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
            raise BrokenError(self._where(), f"more than {DEEPEST} elements inside each other")
        element = Element(tag, self._where())
        self._open[-1].children.append(element)
        self._open.append(element)
        self._texts.append([])

    def _end(self, tag: str) -> None:
        self._open.pop().text = "".join(self._texts.pop()).strip()

    def _refuse(self, name: str, *rest: Any) -> NoReturn:
        raise BrokenError(self._where(), f"declares the entity {name!r}; annotations need none")
