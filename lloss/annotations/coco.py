"""COCO's JSON of objects: images, annotations and categories that refer to each other by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from lloss.annotations.boxes import BoxedObject, ObjectList, check_box, check_class
from lloss.annotations.json_fields import Box, FileName, Flag, Name, PixelCount, convert, image_size
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.text.image_paths import image_path


class Category(msgspec.Struct):
    """An entry of ``categories``."""

    id: int
    name: Name


class ImageReference(msgspec.Struct):
    """The image of an entry of ``annotations``."""

    image_id: int


class Annotation(ImageReference):
    """An entry of ``annotations``; the box is x, y, width, height."""

    category_id: int
    bbox: Box
    iscrowd: Flag = None
    ignore: Flag = None
    difficult: Flag = None


class _Image(msgspec.Struct):
    id: int
    file_name: FileName
    height: PixelCount | None = None
    width: PixelCount | None = None


R = TypeVar("R", bound="Category | _Image")
C = TypeVar("C", bound=Category)


@dataclass(slots=True)
class CocoImage:
    """An image: the place of its entry, its ``file_name``, height and width, and its objects."""

    where: str
    name: str
    size: tuple[int, int] | None
    objects: ObjectList = field(default_factory=ObjectList)


@dataclass(frozen=True, slots=True)
class CocoFile(Generic[C]):
    """The images and categories of a file, by number.

    ``broken`` are the numbers of images that were left out, and their annotations with them.
    """

    name: str
    images: dict[int, CocoImage]
    broken: set[int | None]
    categories: dict[int, C]

    def find_image(self, annotation: ImageReference, where: str) -> CocoImage | None:
        """The image of an annotation; None where it was left out already."""
        id = annotation.image_id
        if id not in self.images and id not in self.broken:
            raise AnnotationError(f"{where}.image_id", f"no image has the id {id}")
        return self.images.get(id)

    def find_category(self, annotation: Annotation, where: str) -> C:
        """The category of an annotation."""
        id = annotation.category_id
        if id not in self.categories:
            raise AnnotationError(f"{where}.category_id", f"no category has the id {id}")
        return self.categories[id]


def is_coco(document: Any) -> bool:
    """Whether this is COCO's kind of JSON."""
    return isinstance(document, Mapping) and "images" in document and "annotations" in document


def entries(document: Any, key: str, name: str) -> list[Any]:
    """A list of the file; refuse a file without it."""
    part = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(part, list):
        raise LabelError(
            f"{name}: lacks the list {key!r}; a COCO file has 'images', 'annotations' and "
            "'categories'"
        )
    return part


def open_coco(document: Any, name: str, kind: type[C], problems: Problems) -> CocoFile[C]:
    """Read the images and categories of a file; categories as records of a ``kind``."""
    listed = entries(document, "images", name)
    records, broken = _by_id(listed, _Image, f"{name}: images", "image", problems)
    first: dict[str, int] = {}
    for id, (place, record) in records.items():
        other = first.setdefault(image_path(record.file_name), id)
        with problems.skipping():
            if other != id:
                broken |= {id, other}
                at = records[other][0].rpartition(": ")[2]
                what = f"{record.file_name!r} is at {at} too"
                raise AnnotationError(f"{place}.file_name", what)
    for entry in listed if broken else ():
        if (
            _id(entry) in broken
            and isinstance(entry, Mapping)
            and isinstance(entry.get("file_name"), str)
        ):
            problems.mark_unusable(name, entry["file_name"])
    images = {
        id: CocoImage(place, record.file_name, image_size(record.height, record.width))
        for id, (place, record) in records.items()
        if id not in broken
    }
    named, _ = _by_id(
        entries(document, "categories", name), kind, f"{name}: categories", "category", problems
    )
    return CocoFile(name, images, broken, {id: category for id, (_, category) in named.items()})


def _by_id(
    listed: list[Any], kind: type[R], where: str, noun: str, problems: Problems
) -> tuple[dict[int, tuple[str, R]], set[int | None]]:
    """Place and record by number, and the numbers that are broken or repeated."""
    records: dict[int, tuple[str, R]] = {}
    broken = set[int | None]()
    for index, entry in enumerate(listed):
        place = f"{where}[{index}]"
        with problems.skipping():
            try:
                record = convert(entry, kind, place)
            except AnnotationError:
                broken.add(_id(entry))
                raise
            if record.id in records or record.id in broken:
                broken.add(record.id)
                raise AnnotationError(f"{place}.id", f"{record.id} is the id of another {noun} too")
            records[record.id] = place, record
    return {id: record for id, record in records.items() if id not in broken}, broken


def _id(entry: Any) -> int | None:
    id = entry.get("id") if isinstance(entry, Mapping) else None
    return id if isinstance(id, int) else None


def parse_objects(
    document: Any, name: str, classes: frozenset[str] | None, problems: Problems
) -> list[CocoImage]:
    """Read the images of a file with their objects, in its order.

    An image with a broken object is left out; classes are refused that are not among ``classes``.
    """
    file = open_coco(document, name, Category, problems)
    annotations = entries(document, "annotations", name)
    ambiguous = _ambiguous_names(file, annotations)
    for index, entry in enumerate(annotations):
        where = f"{name}: annotations[{index}]"
        with problems.skipping():
            image = file.find_image(convert(entry, ImageReference, where), where)
            if image is None:
                continue
            with image.objects.skipping(problems):
                found = _object(file, image.size, convert(entry, Annotation, where), where)
                check_class(found.name, classes, f"{where}.category_id")
                if found.name in ambiguous:
                    raise AnnotationError(f"{where}.category_id", ambiguous[found.name])
                image.objects.objects.append(found)
    for image in file.images.values():
        if not image.objects.complete:
            problems.mark_unusable(name, image.name)
    return [image for image in file.images.values() if image.objects.complete]


def _ambiguous_names(file: CocoFile[Category], annotations: list[Any]) -> dict[str, str]:
    """Names of several categories that annotations use, and what is wrong with each.

    To join the categories into one class would be a guess, and so would be to prefer one.
    """
    ids = [entry.get("category_id") for entry in annotations if isinstance(entry, Mapping)]
    used = {id for id in ids if isinstance(id, int)}
    numbers: dict[str, list[int]] = {}
    for id, category in file.categories.items():
        if id in used:
            numbers.setdefault(category.name, []).append(id)
    return {
        name: f"the categories {' and '.join(map(str, ids))} are both called {name!r}"
        for name, ids in numbers.items()
        if len(ids) > 1
    }


def _object(
    file: CocoFile[Category], size: tuple[int, int] | None, annotation: Annotation, where: str
) -> BoxedObject:
    name = str(file.find_category(annotation, where).name)
    x, y, width, height = written = annotation.bbox
    edges = x, y, x + width, y + height
    box = check_box(edges, size, f"{where}.bbox", written, "x, y, width, height")
    difficult = bool(annotation.difficult) or bool(annotation.ignore)
    return BoxedObject(name, box, difficult, bool(annotation.iscrowd))
