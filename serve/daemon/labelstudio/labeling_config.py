"""Labeling configurations: which controls choose a class of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn
from xml.parsers import expat

_LONGEST = 1 << 20
"""Characters; that of a thousand classes has a twentieth."""

_DEEPEST = 64
"""Elements inside each other."""


@dataclass(frozen=True)
class Control:
    """A ``Choices`` control of a whole image.

    Attributes:
        name: of the control.
        image: name of the ``Image`` that it is of.
        stored: what an annotation holds when a choice is made, by the choice's value and by its
            alias.
    """

    name: str
    image: str
    stored: Mapping[str, str]


@dataclass(frozen=True)
class LabelConfig:
    """What a labeling configuration says of images.

    Attributes:
        controls: that choose a class.
        images: keys of a task's data that images are shown from.
    """

    controls: tuple[Control, ...] = ()
    images: tuple[str, ...] = ()

    def chosen(self, name: str) -> list[dict[str, object]]:
        """The result of a prediction of this class; empty where no control offers it."""
        for control in self.controls:
            if name in control.stored:
                value = {"choices": [control.stored[name]]}
                names = {"from_name": control.name, "to_name": control.image}
                return [{**names, "type": "choices", "value": value}]
        return []


def read_config(text: object) -> LabelConfig:
    """Read a configuration; one that cannot be read, or is no text, offers nothing."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        return LabelConfig()
    return _read(text)


@lru_cache(maxsize=16)
def _read(text: str) -> LabelConfig:
    tree = _Tree()
    try:
        tree.parser.Parse(text.encode(), True)
    except (expat.ExpatError, UnicodeEncodeError, _RefusedError):
        return LabelConfig()
    controls = [draft.control(tree.images) for draft in tree.drafts]
    keys = [value[1:] for value in tree.images.values() if value.startswith("$")]
    return LabelConfig(tuple(filter(None, controls)), tuple(keys))


class _RefusedError(Exception):
    """A configuration that no labeling tool writes."""


@dataclass
class _Draft:
    """A ``Choices`` element whose image may still follow."""

    name: str
    targets: list[str]
    stored: dict[str, str] = field(default_factory=dict)

    def control(self, images: Mapping[str, str]) -> Control | None:
        image = next((target for target in self.targets if target in images), None)
        if not self.name or image is None or not self.stored:
            return None
        return Control(self.name, image, self.stored)


class _Tree:
    """Gathers images and choices while the parser reads."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}
        self.drafts: list[_Draft] = []
        self._open: list[_Draft | None] = []
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._refuse  # none is needed, and attacks are

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= _DEEPEST:
            raise _RefusedError
        draft = None
        if tag == "Image" and "name" in attributes:
            self.images[attributes["name"]] = attributes.get("value", "")
        elif tag == "Choices":
            draft = self._choices(attributes)
        elif tag == "Choice" and self._open and (outer := self._open[-1]) is not None:
            self._choice(outer, attributes)
        self._open.append(draft)

    def _choices(self, attributes: dict[str, str]) -> _Draft | None:
        if attributes.get("perRegion", "").lower() == "true":
            return None  # of a part of an image
        targets = [name.strip() for name in attributes.get("toName", "").split(",")]
        self.drafts.append(_Draft(attributes.get("name", ""), targets))
        return self.drafts[-1]

    def _choice(self, outer: _Draft, attributes: dict[str, str]) -> None:
        value, alias = attributes.get("value", ""), attributes.get("alias", "")
        for name in filter(None, (value, alias)):
            outer.stored.setdefault(name, alias or value)

    def _end(self, tag: str) -> None:
        self._open.pop()

    def _refuse(self, *_: object) -> NoReturn:
        raise _RefusedError
