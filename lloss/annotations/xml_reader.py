"""Small XML files whose elements know their lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

from lloss.annotations.validation import BrokenError
from lloss.errors import ImageError
from lloss.pools.pool import read_file

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


def read_xml(path: Path) -> Element:
    """The outermost element of a file.

    Raises:
        BrokenError: it cannot be read, is no XML, or declares entities (which annotations have no
            use for, and attacks do).
    """
    try:
        data = read_file(path)
    except ImageError as error:
        raise BrokenError(str(path), str(error)) from error
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
