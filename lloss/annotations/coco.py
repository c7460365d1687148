"""COCO's JSON of objects: images, annotations and categories that refer to each other by number."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lloss.annotations.boxes import Edges, Found, check_class, checked, label_of
from lloss.annotations.json_fields import (
    BrokenError,
    Whole,
    leaving_out,
    name_of,
    number,
    numbers,
    side_of,
    text,
)
from lloss.annotations.json_fields import field as needed
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.text.image_paths import image_path


@dataclass(slots=True)
class CocoImage:
    """An entry of ``images``.

    Attributes:
        where: of the entry: ``train.json: images[3]``.
        name: its ``file_name``.
        size: height and width; None where the entry lacks them.
        objects: those found so far.
        whole: whether those are all.
    """

    where: str
    name: str
    size: tuple[int, int] | None
    objects: list[Found] = field(default_factory=list)
    whole: Whole = field(default_factory=Whole)

    @property
    def label(self) -> ObjectLabel:
        """Its objects."""
        return label_of(self.objects, self.size)


@dataclass(frozen=True, slots=True)
class CocoFile:
    """What annotations refer to.

    Attributes:
        name: of the file, for messages.
        images: by their number, in the file's order.
        broken: numbers of images that were left out, whose annotations are left out with them.
        categories: by their number.
    """

    name: str
    images: dict[int, CocoImage]
    broken: set[int]
    categories: dict[int, Mapping[str, Any]]

    def image_of(self, entry: Any, where: str) -> CocoImage | None:
        """The image that an annotation is of; None where that was left out already.

        Raises:
            BrokenError: there is no such image.
        """
        id = identifier(entry, "image_id", where)
        if id not in self.images and id not in self.broken:
            raise BrokenError(f"{where}.image_id", f"no image has the id {id}")
        return self.images.get(id)

    def category_of(self, entry: Any, where: str) -> Mapping[str, Any]:
        """The category that an annotation names.

        Raises:
            BrokenError: there is no such category.
        """
        id = identifier(entry, "category_id", where)
        if id not in self.categories:
            raise BrokenError(f"{where}.category_id", f"no category has the id {id}")
        return self.categories[id]


def is_coco(document: Any) -> bool:
    """Whether this is COCO's kind of JSON."""
    return isinstance(document, Mapping) and "images" in document and "annotations" in document


def open_coco(document: Any, name: str, problems: Problems) -> CocoFile:
    """The images and categories of a file.

    Raises:
        LabelError: a part is missing or no list.
    """
    images: dict[int, CocoImage] = {}
    broken: set[int] = set()
    names: dict[str, tuple[int, int]] = {}
    for place, entry in enumerate(listed(document, "images", name)):
        where = f"{name}: images[{place}]"
        with leaving_out(problems):
            id = identifier(entry, "id", where)
            if id in images or id in broken:
                images.pop(id, None)  # of which the annotations are nobody knows
                broken.add(id)
                raise BrokenError(f"{where}.id", f"{id} is the id of another image too")
            broken.add(id)
            image = _image(entry, where)
            first, at = names.setdefault(image_path(image.name), (id, place))
            if at != place:
                images.pop(first, None)
                broken.add(first)
                raise BrokenError(
                    f"{where}.file_name", f"{image.name!r} stands at images[{at}] too"
                )
            images[id] = image
            broken.discard(id)
    for entry in document["images"] if broken else ():
        named = entry.get("file_name") if isinstance(entry, Mapping) else None
        if isinstance(named, str) and entry.get("id") in broken:
            problems.leave_out(name, named)
    return CocoFile(name, images, broken, _categories(document, name, problems))


def _categories(document: Any, name: str, problems: Problems) -> dict[int, Mapping[str, Any]]:
    categories: dict[int, Mapping[str, Any]] = {}
    doubled = set[int]()
    for place, entry in enumerate(listed(document, "categories", name)):
        where = f"{name}: categories[{place}]"
        with leaving_out(problems):
            id = identifier(entry, "id", where)
            named = name_of(needed(entry, "name", where), f"{where}.name")
            if id in categories or id in doubled:
                categories.pop(id, None)
                doubled.add(id)
                raise BrokenError(f"{where}.id", f"{id} is the id of another category too")
            categories[id] = {**entry, "name": named}
    return categories


def read_coco(
    document: Any, name: str, classes: frozenset[str] | None, problems: Problems
) -> list[CocoImage]:
    """The images of a file with their objects, in its order.

    Args:
        document: the JSON.
        name: of the file, for messages.
        classes: the names that are allowed; None for any.
        problems: broken images, categories and annotations go there. An image with a broken object
            is left out.

    Raises:
        LabelError: a part is missing or no list.
    """
    file = open_coco(document, name, problems)
    annotations = listed(document, "annotations", name)
    twins = _twins(file, annotations)
    for place, entry in enumerate(annotations):
        where = f"{name}: annotations[{place}]"
        with leaving_out(problems):
            image = file.image_of(entry, where)
            if image is None:
                continue
            with image.whole.leaving_out(problems):
                found = _object(file, image, entry, classes, where)
                if found.name in twins:
                    raise BrokenError(f"{where}.category_id", twins[found.name])
                image.objects.append(found)
    for image in file.images.values():
        if not image.whole.yes:
            problems.leave_out(name, image.name)
    return [image for image in file.images.values() if image.whole.yes]


def listed(document: Any, key: str, name: str) -> list[Any]:
    """A part of the file.

    Raises:
        LabelError: it is missing or no list.
    """
    part = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(part, list):
        raise LabelError(
            f"{name}: lacks the list {key!r}; a COCO file has 'images', 'annotations' and "
            "'categories'"
        )
    return part


def identifier(entry: Any, key: str, where: str) -> int:
    """A number that entries refer to each other by."""
    value = needed(entry, key, where)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BrokenError(f"{where}.{key}", f"{reprlib.repr(value)} is no whole number")
    return value


def box_of(entry: Any, where: str) -> tuple[float, float, float, float]:
    """An annotation's x, y, width, height."""
    x, y, width, height = numbers(needed(entry, "bbox", where), 4, f"{where}.bbox")
    return x, y, width, height


def is_set(entry: Any, key: str, where: str) -> bool:
    """Whether an optional flag is there and not 0."""
    value = entry.get(key)
    return value is True or (bool(value) and number(value, f"{where}.{key}") != 0)


def _twins(file: CocoFile, annotations: list[Any]) -> dict[str, str]:
    """Names that several categories share which annotations use; what is wrong with each.

    Joining them into one class would be a guess, and so would be preferring one of them.
    """
    ids = [entry.get("category_id") for entry in annotations if isinstance(entry, Mapping)]
    used = {id for id in ids if isinstance(id, int)}
    sharing: dict[str, list[int]] = {}
    for id, category in file.categories.items():
        if id in used:
            sharing.setdefault(category["name"], []).append(id)
    return {
        name: f"the categories {' and '.join(map(str, numbers))} are both called {name!r}"
        for name, numbers in sharing.items()
        if len(numbers) > 1
    }


def _image(entry: Any, where: str) -> CocoImage:
    name = text(entry, "file_name", where)
    height, width = side_of(entry, "height", where), side_of(entry, "width", where)
    return CocoImage(where, name, (height, width) if height and width else None)


def _object(
    file: CocoFile, image: CocoImage, entry: Any, classes: frozenset[str] | None, where: str
) -> Found:
    name = file.category_of(entry, where)["name"]
    check_class(name, classes, f"{where}.category_id")
    x, y, width, height = box_of(entry, where)
    shown = f"{x:g}, {y:g}, {width:g}, {height:g} (x, y, width, height)"
    edges: Edges = (x, y, x + width, y + height)
    difficult = is_set(entry, "difficult", where) or is_set(entry, "ignore", where)
    box = checked(edges, image.size, f"{where}.bbox", shown)
    return Found(name, box, difficult, is_set(entry, "iscrowd", where))
