"""CVAT's XML "for images 1.1": all images of a task with their shapes and tags in one file.

Boxes are edges in pixels. See https://docs.cvat.ai/docs/other/xml_format.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from lloss.annotations.boxes import (
    BoxedObject,
    Edges,
    ListedImage,
    ObjectList,
    box_around,
    check_box,
    check_turned_box,
    ellipse_box,
    note_converted,
    usable_images,
)
from lloss.annotations.number_text import parse_number
from lloss.annotations.problems import AnnotationError, Problems, note_predictions
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name
from lloss.text.counts import part
from lloss.text.image_paths import image_path

_EDGES = ("xtl", "ytl", "xbr", "ybr")


def parse_cvat(path: Path, problems: Problems) -> list[ListedImage]:
    """Read the images of a file with their boxes, without those of a broken one.

    Polygons, ellipses, masks and rotated boxes become the upright boxes around them. Notes count
    those, and what is left out.
    """
    images: list[ListedImage] = []
    converted, left_out = Counter[str](), Counter[str]()
    unlabeled = 0
    for where, name, element in _images(path, problems):
        image = ListedImage(where, name, _size(element, where), ObjectList())
        for number, shape in enumerate(element, 1):
            place = f"{where}, {shape.tag} {number}"
            with image.objects.skipping(problems):
                if shape.tag == "box":
                    rotation = parse_number(shape.get("rotation", "0"), place, "rotation") % 360
                    converted["rotated boxes"] += rotation != 0
                    box = _box(shape, rotation, image.size, place)
                elif around := _AROUND.get(shape.tag):
                    converted[f"{shape.tag}s"] += 1
                    box = around(shape, image.size, place)
                else:
                    left_out[shape.tag] += 1
                    continue
                image.objects.objects.append(BoxedObject(_label(shape, place), box))
        others = any(shape.tag not in ("box", "tag", *_AROUND) for shape in element)
        if others and image.objects.complete and not image.objects.objects:
            unlabeled += 1  # an object is on it, so that it is not background
        else:
            images.append(image)
    if unlabeled and images:
        have = part(unlabeled, unlabeled + len(images), "images", "have")
        problems.note(f"{path}: {have} no box, but other shapes: not labeled yet")
    note_converted(str(path), converted, problems)
    _note_left_out(path, left_out, "only shapes with an area are objects", bool(images), problems)
    return usable_images(images, str(path), problems)


def parse_tags(path: Path, problems: Problems) -> dict[str, str]:
    """Read the class of each image that has a tag, by the image's name; notes count the others."""
    labels: dict[str, str] = {}
    left_out, without, total = Counter[str](), 0, 0
    for where, name, element in _images(path, problems):
        total += 1
        with problems.skipping():
            left_out.update(shape.tag for shape in element if shape.tag != "tag")
            tags = {_label(tag, where) for tag in element.findall("tag")}
            if len(tags) > 1:
                problems.mark_unusable(str(path), name)
                shown = " and ".join(map(repr, sorted(tags)))
                raise AnnotationError(where, f"has the tags {shown}; keep one")
            labels.update((name, tag) for tag in tags)
            without += not tags
    if without:
        have = part(without, total, "images", "have")
        problems.note(f"{path}: {have} no tag: not labeled yet")
    any_left = bool(labels or problems.broken)
    _note_left_out(path, left_out, "only tags are classes of images", any_left, problems)
    return labels


def is_tagged(path: Path) -> bool:
    """Whether the images of a file have tags, and no shapes with an area."""
    kinds = {shape.tag for _, _, image in _images(path, Problems()) for shape in image}
    return "tag" in kinds and not kinds & {"box", *_AROUND}


def _images(path: Path, problems: Problems) -> Iterator[tuple[str, str, ElementTree.Element]]:
    """Place, name and element of each image; a note counts what a network found."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise LabelError(f"{path}: is not XML: {error}") from error
    if root.tag == "annotation":
        raise LabelError(f"{path}: is of one image; give the folder of the XML files")
    if root.tag != "annotations":
        raise LabelError(f"{path}: <{root.tag}> is not CVAT's <annotations>")
    if root.find("track") is not None:
        raise LabelError(f"{path}: is of a video; export it as 'CVAT for images 1.1'")
    shapes = root.findall("image/*")
    found = sum(shape.get("source") == "auto" for shape in shapes)
    note_predictions(str(path), found, len(shapes), "shapes have the source 'auto'", problems)
    first: dict[str, int] = {}
    for number, element in enumerate(root.findall("image"), 1):
        name = element.get("name", "")
        if not name.strip():
            raise LabelError(f"{path}: image {number}: lacks its name; correct the file")
        other = first.setdefault(image_path(name), number)
        if other != number:
            what = f"image {number}: {name!r} is image {other} too"
            raise LabelError(f"{path}: {what}; export each subset alone, or correct the file")
        yield f"{path}: image {number} ({name})", name, element


def _size(element: ElementTree.Element, where: str) -> tuple[int, int] | None:
    """Height and width, if the file has them."""
    try:
        height, width = (int(element.get(key, "0")) for key in ("height", "width"))
    except ValueError:
        raise LabelError(f"{where}: its width or height is not a whole number") from None
    return (height, width) if height > 0 and width > 0 else None


def _label(shape: ElementTree.Element, where: str) -> str:
    name = clean_name(shape.get("label", ""))
    if not name:
        raise AnnotationError(where, "its label is empty")
    return name


def _box(
    shape: ElementTree.Element, rotation: float, size: tuple[int, int] | None, where: str
) -> Edges:
    """The edges of a box; if it is turned by these degrees, of the upright box around it."""
    written = _numbers(shape, _EDGES, where)
    x0, y0, x1, y1 = written
    if rotation == 0:
        return check_box((x0, y0, x1, y1), size, where, written, ", ".join(_EDGES))
    check_box((x0, y0, x1, y1), None, where, written, ", ".join(_EDGES))
    cos, sin = abs(math.cos(math.radians(rotation))), abs(math.sin(math.radians(rotation)))
    across, down = (x1 - x0) / 2, (y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    width, height = across * cos + down * sin, across * sin + down * cos
    return check_turned_box((x - width, y - height, x + width, y + height), size, where)


def _around(shape: ElementTree.Element, size: tuple[int, int] | None, where: str) -> Edges:
    """The edges of the box around a polygon, whose points are ``x,y;x,y``."""
    points = [
        [parse_number(number, where, "points") for number in point.split(",")]
        for point in shape.get("points", "").split(";")
    ]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise AnnotationError(where, "its points are not three or more of x,y")
    box = box_around(points)
    return check_box(box, size, where, box, "edges")


def _around_ellipse(shape: ElementTree.Element, size: tuple[int, int] | None, where: str) -> Edges:
    x, y, wide, high = _numbers(shape, ("cx", "cy", "rx", "ry"), where)
    rotation = parse_number(shape.get("rotation", "0"), where, "rotation")
    return check_turned_box(ellipse_box(x, y, wide, high, rotation), size, where)


def _around_mask(shape: ElementTree.Element, size: tuple[int, int] | None, where: str) -> Edges:
    fields = ("left", "top", "width", "height")
    left, top, width, height = written = _numbers(shape, fields, where)
    edges = left, top, left + width, top + height
    return check_box(edges, size, where, written, ", ".join(fields))


def _numbers(shape: ElementTree.Element, fields: Iterable[str], where: str) -> list[float]:
    return [parse_number(shape.get(field, ""), where, field) for field in fields]


_AROUND = {"polygon": _around, "ellipse": _around_ellipse, "mask": _around_mask}
"""What gives the box around a shape, by its tag."""


def _note_left_out(
    path: Path, kinds: Counter[str], why: str, any_left: bool, problems: Problems
) -> None:
    """Note which shapes are not read; refuse a file of which nothing is left."""
    if kinds:
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        if not any_left:
            raise LabelError(f"{path}: holds no label: left out {shown} ({why})")
        problems.note(f"{path}: left out {shown} ({why})")
