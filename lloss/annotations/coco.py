"""COCO's JSON of objects: images, annotations and categories that refer to each other by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from lloss.annotations.boxes import BoxedObject, ListedImage, check_box, usable_images
from lloss.annotations.json_fields import Box, FileName, Flag, Name, PixelCount, convert
from lloss.annotations.problems import AnnotationError, Problems, note_predictions
from lloss.errors import LabelError
from lloss.text.image_paths import image_path


class Category(msgspec.Struct):
    """An entry of ``categories``."""

    id: int
    name: Name


class Annotation(msgspec.Struct):
    """An entry of ``annotations``; the box is x, y, width, height."""

    image_id: int
    category_id: int
    bbox: Box
    iscrowd: Flag = None
    ignore: Flag = None
    difficult: Flag = None


class _ImageReference(msgspec.Struct):
    image_id: int


class _Image(msgspec.Struct):
    id: int
    file_name: FileName
    height: PixelCount | None = None
    width: PixelCount | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        return (int(self.height), int(self.width)) if self.height and self.width else None


R = TypeVar("R", bound="Category | _Image")
C = TypeVar("C", bound=Category)
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class CocoFile(Generic[C]):
    """The images and categories of a file, by number."""

    images: dict[int, ListedImage]
    categories: dict[int, C]

    def find_image(self, id: int, where: str) -> ListedImage:
        """The image of an annotation."""
        return _find(self.images, id, f"{where}.image_id", "image")

    def find_category(self, id: int, where: str) -> C:
        """The category of an annotation."""
        return _find(self.categories, id, f"{where}.category_id", "category")


def _find(known: Mapping[int, F], id: int, where: str, noun: str) -> F:
    if id not in known:
        raise AnnotationError(where, f"no {noun} has the id {id}")
    return known[id]


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


def open_coco(document: Any, name: str, kind: type[C]) -> CocoFile[C]:
    """Read the images and categories of a file, the latter as records of a ``kind``.

    One that is broken, or comes twice, makes the whole file doubtful and is always refused.
    """
    try:
        records = _by_id(entries(document, "images", name), _Image, f"{name}: images")
        first: dict[str, str] = {}
        for place, record in records.values():
            other = first.setdefault(image_path(record.file_name), place)
            if other != place:
                what = f"{record.file_name!r} is at {other.rpartition(': ')[2]} too"
                raise AnnotationError(f"{place}.file_name", what)
        named = _by_id(entries(document, "categories", name), kind, f"{name}: categories")
    except AnnotationError as error:
        raise LabelError(f"{error}; correct the file") from error
    images = {id: ListedImage(at, one.file_name, one.size) for id, (at, one) in records.items()}
    return CocoFile(images, {id: category for id, (_, category) in named.items()})


def _by_id(listed: list[Any], kind: type[R], where: str) -> dict[int, tuple[str, R]]:
    """Place and record by number."""
    records: dict[int, tuple[str, R]] = {}
    for index, entry in enumerate(listed):
        place = f"{where}[{index}]"
        record = convert(entry, kind, place)
        if record.id in records:
            other = records[record.id][0].rpartition(": ")[2]
            raise AnnotationError(f"{place}.id", f"{record.id} is the id of {other} too")
        records[record.id] = place, record
    return records


def parse_objects(document: Any, name: str, problems: Problems) -> list[ListedImage]:
    """Read the images of a file with their objects, in its order, without those of a broken one."""
    file = open_coco(document, name, Category)
    numbers: dict[str, int] = {}
    listed = entries(document, "annotations", name)
    note_scored(listed, name, problems)
    for index, entry in enumerate(listed):
        where = f"{name}: annotations[{index}]"
        with problems.skipping():
            image = file.find_image(convert(entry, _ImageReference, where).image_id, where)
            with image.objects.skipping(problems):
                annotation = convert(entry, Annotation, where)
                found = _object(file, image.size, annotation, where)
                image.objects.objects.append(found)
                id = numbers.setdefault(found.name, annotation.category_id)
                if id != annotation.category_id:  # one class, or two? either would be a guess
                    both = f"the categories {id} and {annotation.category_id}"
                    raise LabelError(f"{name}: {both} are both called {found.name!r}; rename one")
    return usable_images(file.images.values(), name, problems)


def note_scored(listed: list[Any], name: str, problems: Problems) -> None:
    """Count annotations with a score, as a list of images to label has them."""
    scored = sum(isinstance(entry, Mapping) and entry.get("score") is not None for entry in listed)
    note_predictions(name, scored, len(listed), "annotations have a score", problems)


def _object(
    file: CocoFile[Category], size: tuple[int, int] | None, annotation: Annotation, where: str
) -> BoxedObject:
    name = str(file.find_category(annotation.category_id, where).name)
    x, y, width, height = written = annotation.bbox
    edges = x, y, x + width, y + height
    box = check_box(edges, size, f"{where}.bbox", written, "x, y, width, height")
    difficult = bool(annotation.difficult) or bool(annotation.ignore)
    return BoxedObject(name, box, difficult, bool(annotation.iscrowd))
