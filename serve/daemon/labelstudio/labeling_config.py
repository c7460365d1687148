"""Labeling configurations: which controls choose a class of an image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from xml.etree import ElementTree

_MAX_CHARACTERS = 1 << 20
"""The configuration of a thousand classes has a twentieth of this length."""


@dataclass(frozen=True)
class ChoicesControl:
    """A ``Choices`` control of a whole image.

    Attributes:
        name: its name.
        image: name of the ``Image`` that it belongs to.
        stored: what an annotation stores, by the choice's value and by its alias.
    """

    name: str
    image: str
    stored: Mapping[str, str]

    def result(self, choice: str) -> list[dict[str, object]]:
        """The result of a prediction of this class; empty when the control does not offer it."""
        if choice not in self.stored:
            return []
        value = {"choices": [self.stored[choice]]}
        names = {"from_name": self.name, "to_name": self.image}
        return [{**names, "type": "choices", "value": value}]


def read_config(text: object) -> tuple[ChoicesControl, ...]:
    """The controls of a configuration; an unreadable one has none."""
    # Without a DOCTYPE there are no entities to expand.
    if not isinstance(text, str) or len(text) > _MAX_CHARACTERS or "<!DOCTYPE" in text:
        return ()
    return _read(text)


@lru_cache(maxsize=16)
def _read(text: str) -> tuple[ChoicesControl, ...]:
    try:
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):  # ValueError: a lone surrogate
        return ()
    images = {image.get("name", "") for image in tree.iter("Image")}
    controls = (_control(element, images) for element in tree.iter("Choices"))
    return tuple(filter(None, controls))


def _control(element: ElementTree.Element, images: Collection[str]) -> ChoicesControl | None:
    if element.get("perRegion", "").lower() == "true":
        return None
    targets = (name.strip() for name in element.get("toName", "").split(","))
    image = next((target for target in targets if target in images), None)
    stored: dict[str, str] = {}
    for choice in element.findall("Choice"):
        value, alias = choice.get("value", ""), choice.get("alias", "")
        for name in filter(None, (value, alias)):
            stored.setdefault(name, alias or value)
    name = element.get("name", "")
    return ChoicesControl(name, image, stored) if name and image and stored else None
