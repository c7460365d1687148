"""Labeling configurations: which controls choose a class of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from xml.etree import ElementTree

_MAX_CHARACTERS = 1 << 20
"""The configuration of a thousand classes has a twentieth of that."""


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


@dataclass(frozen=True)
class LabelingConfig:
    """The controls that choose a class, and the keys of task data that hold images."""

    controls: tuple[ChoicesControl, ...] = ()
    image_keys: tuple[str, ...] = ()

    def result(self, name: str) -> list[dict[str, object]]:
        """The result of a prediction of this class; empty when no control offers it."""
        for control in self.controls:
            if name in control.stored:
                value = {"choices": [control.stored[name]]}
                names = {"from_name": control.name, "to_name": control.image}
                return [{**names, "type": "choices", "value": value}]
        return []


def read_config(text: object) -> LabelingConfig:
    """Read a configuration; an unreadable one is empty."""
    # Without a DOCTYPE there are no entities to expand.
    if not isinstance(text, str) or len(text) > _MAX_CHARACTERS or "<!DOCTYPE" in text:
        return LabelingConfig()
    return _read(text)


@lru_cache(maxsize=16)
def _read(text: str) -> LabelingConfig:
    try:
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):  # ValueError: a lone surrogate
        return LabelingConfig()
    images = {one.get("name", ""): one.get("value", "") for one in tree.iter("Image")}
    controls = (_control(element, images) for element in tree.iter("Choices"))
    keys = [value[1:] for value in images.values() if value.startswith("$")]
    return LabelingConfig(tuple(filter(None, controls)), tuple(keys))


def _control(element: ElementTree.Element, images: Mapping[str, str]) -> ChoicesControl | None:
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
