"""Images labeled with the objects in them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lloss.annotations.boxes import checked
from lloss.annotations.class_list import known_classes
from lloss.annotations.coco import CocoImage, is_coco, read_coco
from lloss.annotations.json_fields import BrokenError, Whole, leaving_out, load_json
from lloss.annotations.label_archive import native_labels
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import Problems
from lloss.data.id_matching import agree
from lloss.data.label_joining import images_of, labeled_pool
from lloss.data.labeled_set import LabeledSet
from lloss.data.voc_folders import (
    SETS,
    SplitRow,
    downloaded,
    read_folder,
    read_split,
    read_xml_file,
    years_of,
)
from lloss.errors import ImageError, LabelError, PoolError
from lloss.images.decode import size_of
from lloss.pools import Item, Pool
from lloss.pools.image_files import ImageRoot, read_file
from lloss.pools.storage import LocalPath, image_folder
from lloss.pools.uri import PoolUri
from lloss.text.image_paths import image_path

DEFAULT_SPLIT = "trainval"


def read_objects(path: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """The objects that a file or a folder holds, by the name of the image.

    Args:
        path: a COCO JSON (names are its ``file_name``), a folder of VOC XML (names are the files'
            own; ``<filename>`` is the label's ``named``), or what ``native.write_labels`` wrote.
            A file ``classes.txt`` beside the JSON, in the folder or above it names the classes
            that are allowed, one a line.
        problems: broken annotations go there; an image with one is left out, unless that is a box
            without area, which marks nothing.

    Raises:
        LabelError: there is no such file, or it is of no known kind.
    """
    if path.is_dir():
        return read_folder(path, problems)
    if path.suffix.lower() == ".xml":
        raise LabelError(f"{path}: is of one image; give the folder of the XML files")
    document = load_json(path)
    native = native_labels(document, str(path), "objects")
    if native is not None:
        return native
    return {image.name: image.label for image in _coco_images(path, document, problems)}


def join_objects(
    pool: Pool, labels: Mapping[str, ObjectLabel], origin: str, problems: Problems
) -> LabeledSet:
    """Labels and the images of a pool that they are of.

    Args:
        pool: of the images.
        labels: by a name of the image; what it means says :mod:`lloss.data.id_matching`.
            Where a label is ``named`` too, and both names mean an image, they mean the same one.
        origin: of the labels, for messages.
        problems: labels of images that the pool lacks go there, images with several labels, and
            boxes outside an image whose size the label does not tell.

    Raises:
        LabelError: there is no label.
    """
    if not labels and not problems.found:
        raise LabelError(f"{origin}: holds no label yet; label some images first")
    chosen = images_of(pool, object_names(labels), origin, problems)
    differ = [k for k, id in chosen.items() if not all(map(agree, _names(k, labels[k]), (id, id)))]
    if differ:
        first = f"{differ[0]!r} with <filename> {labels[differ[0]].named!r}"
        problems.note(
            f"{origin}: {len(differ)} annotation files and the <filename> in them differ in name, "
            f"and the pool has only one of the two: {first} is taken for {chosen[differ[0]]!r}"
        )
    items = pool.find(chosen.values())
    return _finished([(i, labels[k]) for i, k in zip(items, chosen)], origin, problems)


def object_names(labels: Mapping[str, ObjectLabel]) -> dict[str, tuple[str, ...]]:
    """The names of the image that each label is of."""
    return {key: _names(key, label) for key, label in labels.items()}


def _names(key: str, label: ObjectLabel) -> tuple[str, ...]:
    return (label.named, key) if label.named else (key,)


def open_objects(data: str, labels: Path | None, data_root: Path, problems: Problems) -> LabeledSet:
    """Open images labeled with their objects, of any kind.

    Args:
        data: a VOC devkit (its folder, ``VOCdevkit`` in that, or one year in that), a COCO JSON,
            ``voc2007``, ``voc2012`` or ``voc`` (both), which torchvision downloads; a devkit and a
            name take ``:SPLIT`` behind them (``train``, ``val``, ``trainval``, which is the
            default, or ``test``), a JSON ``?image=FOLDER``. With ``labels`` a pool.
        labels: what :func:`read_objects` reads.
        data_root: where torchvision's sets lie or are downloaded to.
        problems: broken annotations and missing images go there.

    Raises:
        LabelError: there is no labeled image, or the annotations cannot be read.
        PoolError: the images cannot be found.
    """
    if labels is not None:
        pool = labeled_pool(data, [labels], problems)
        return join_objects(pool, read_objects(labels, problems), str(labels), problems)
    name, _, split = data.partition(":")
    if name in SETS:
        rows = downloaded(name, split or DEFAULT_SPLIT, data_root.expanduser())
        return _split_set(rows, data, problems)
    asked = PoolUri.parse(data)
    if Path(asked.path).is_file():
        return _coco_set(Path(asked.path), asked.options.get("image", ""), problems)
    path, split = _path_and_split(data)
    years = years_of(path)
    if years:
        return _split_set(read_split(years, split), data, problems)
    if path.exists():
        raise LabelError(f"{data}: carries no labels of its own; add --labels")
    kinds = "a VOC devkit, a COCO .json, or voc2007, voc2012 or voc"
    raise PoolError(f"{data}: no such labeled data; give {kinds}")


def is_named_set(data: str) -> bool:
    """Whether this is a name of torchvision's, with or without its split."""
    return data.partition(":")[0] in SETS


def _path_and_split(data: str) -> tuple[Path, str]:
    head, colon, split = data.rpartition(":")
    if Path(data).exists() or not colon or not Path(head).exists():
        return Path(data), DEFAULT_SPLIT
    return Path(head), split


def _coco_images(path: Path, document: Any, problems: Problems) -> list[CocoImage]:
    if not is_coco(document):
        raise LabelError(
            f"{path}: is no COCO JSON (with 'images', 'annotations' and 'categories'); give one, "
            "or a folder of VOC XML"
        )
    return read_coco(document, str(path), known_classes(path.parent), problems)


def _coco_set(path: Path, folder: str, problems: Problems) -> LabeledSet:
    document = load_json(path)
    if native_labels(document, str(path)) is not None:
        raise LabelError(f"{path}: holds labels without images; give the pool, and it as --labels")
    images = _coco_images(path, document, problems)
    place = image_folder(LocalPath(path), [image.name for image in images], folder)
    found: list[tuple[Item, ObjectLabel]] = []
    for image in images:
        where = f"{image.where}.file_name"
        with leaving_out(problems):
            if place.at(image.name).kind() != "file":
                raise BrokenError(
                    where,
                    f"no image {image.name!r} in {place}; ?image=FOLDER behind the json "
                    "says where they are",
                )
            read = functools.partial(place.read_image, image.name)
            item = Item(image.name, read, file=place.file_of(image.name))
            found.append((item, image.label))
    return _finished(found, str(path), problems)


def _split_set(rows: list[SplitRow], origin: str, problems: Problems) -> LabeledSet:
    roots = {folder: ImageRoot(folder) for folder in {row.image.parent for row in rows}}
    folders = {row.annotation.parent for row in rows}
    classes = {folder: known_classes(folder, folder.parent) for folder in folders}
    found: list[tuple[Item, ObjectLabel]] = []
    seen = set[str]()
    for row in rows:
        with leaving_out(problems):
            if row.id in seen:
                raise BrokenError(row.where, f"the image {row.id!r} stands there twice")
            seen.add(row.id)
            for file in (row.image, row.annotation):
                if not file.is_file():
                    raise BrokenError(row.where, f"there is no file {file}")
            allowed = classes[row.annotation.parent]
            named, label = read_xml_file(row.annotation, allowed, problems)
            _check_named(row, named)
            if label is None:
                continue
            read = functools.partial(read_file, row.image, roots[row.image.parent])
            found.append((Item(row.id, read, file=os.fsencode(row.image)), label))
    return _finished(found, origin, problems)


def _check_named(row: SplitRow, named: str) -> None:
    """Refuse an annotation that names another image of the same folder."""
    other = row.image.parent / image_path(named)
    if named and not agree(named, row.image.name) and other.is_file():
        what = f"means two images, {row.image.name!r} and by its <filename> {named!r}"
        raise BrokenError(str(row.annotation), what)


def _finished(found: list[tuple[Item, ObjectLabel]], origin: str, problems: Problems) -> LabeledSet:
    items: list[Item] = []
    labels: list[Any] = []
    for item, label in found:
        with leaving_out(problems):
            sized = _sized(item, label, f"{origin}: {item.id!r}", problems)
            if sized is not None:
                labels.append(sized)
                items.append(item)
    if not items:
        raise LabelError(f"{origin}: holds no labeled image that can be used")
    return LabeledSet(items, labels, origin)


def _sized(item: Item, label: ObjectLabel, where: str, problems: Problems) -> ObjectLabel | None:
    """The label with its image's size; where it told none, its boxes are checked only now.

    None if one of those that mark something is broken.
    """
    if label.size is not None:
        return label
    try:
        size = size_of(item.read())
    except ImageError as error:
        raise BrokenError(where, f"the image {error}") from error
    boxes, kept, whole = [], [], Whole()
    for row, (name, box) in enumerate(zip(label.names, label.boxes.tolist())):
        x0, y0, x1, y1 = box
        shown = f"{x0:g}, {y0:g}, {x1:g}, {y1:g} (edges)"
        with whole.leaving_out(problems):
            one = f"{where}, object {row + 1} ({name})"
            boxes.append(checked((x0, y0, x1, y1), size, one, shown))
            kept.append(row)
    if not whole.yes:
        return None
    return dataclasses.replace(
        label,
        names=tuple(label.names[row] for row in kept),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        difficult=label.difficult[kept],
        crowd=label.crowd[kept],
        size=size,
    )
