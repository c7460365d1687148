"""Images labeled with the objects in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lloss.annotations.boxes import BoxedObject, ObjectList, check_box
from lloss.annotations.class_list import allowed_classes
from lloss.annotations.coco import CocoImage, is_coco, parse_objects
from lloss.annotations.json_fields import load_json
from lloss.annotations.label_archive import parse_archive
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import AnnotationError, Problems
from lloss.data.id_matching import agree
from lloss.data.label_joining import labeled_pool, match_labels
from lloss.data.labeled_set import LabeledSet
from lloss.data.voc_folders import (
    DEFAULT_SPLIT,
    SETS,
    downloaded,
    labeled_split,
    read_split,
    read_voc_folder,
    years_of,
)
from lloss.errors import ImageError, LabelError, PoolError
from lloss.images.decode import size_of
from lloss.pools import Item, Pool
from lloss.pools.storage import LocalPath, StoragePath, image_folder
from lloss.pools.uri import PoolUri


def read_objects(path: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """Read the objects of a file or a folder, by the name of the image.

    ``path`` is a COCO JSON (names are its ``file_name``), a folder of VOC XML (names are the files'
    own; ``<filename>`` is the label's ``named``), or a file of :func:`.write_labels`. A file
    ``classes.txt`` beside the JSON, in the folder or above it names the classes that are allowed.
    An image with a broken annotation is left out, unless that is a box without area.
    """
    if path.is_dir():
        return read_voc_folder(path, problems)
    if path.suffix.lower() == ".xml":
        raise LabelError(f"{path}: is of one image; give the folder of the XML files")
    document = load_json(path)
    archived = parse_archive(document, str(path), "objects")
    if archived is not None:
        return archived
    images = _coco_images(path, document, problems)
    return {image.name: image.objects.label(image.size) for image in images}


def join_objects(
    pool: Pool, labels: Mapping[str, ObjectLabel], origin: str, problems: Problems
) -> LabeledSet:
    """Join labels with the images of a pool, see :func:`.match_labels`.

    Boxes outside an image whose size the label does not have are found now.
    """
    if not labels and not problems.broken:
        raise LabelError(f"{origin}: holds no label yet; label some images first")
    ids = match_labels(pool, labels, origin, problems)
    differ = [
        key
        for key, id in ids.items()
        if not all(agree(name, id) for name in labels[key].image_names(key))
    ]
    if differ:
        first = f"{differ[0]!r} with <filename> {labels[differ[0]].named!r}"
        problems.note(
            f"{origin}: {len(differ)} annotation files and the <filename> in them differ in name, "
            f"and the pool has only one of the two: {first} is taken for {ids[differ[0]]!r}"
        )
    items = pool.find(ids.values())
    return _labeled_set(zip(items, (labels[key] for key in ids)), origin, problems)


def open_objects(data: str, labels: Path | None, data_root: Path, problems: Problems) -> LabeledSet:
    """Open images labeled with their objects, of any kind.

    Args:
        data: a VOC devkit (its folder, ``VOCdevkit`` in that, or one year in that), a COCO JSON,
            ``voc2007``, ``voc2012`` or ``voc`` (both), which torchvision downloads; a devkit and a
            name take ``:SPLIT`` behind them (``train``, ``val``, ``trainval``, which is the
            default, or ``test``), a JSON ``?image=FOLDER``. With ``labels`` a pool.
        labels: as of :func:`read_objects`.
        data_root: where torchvision's sets are, or are downloaded to.
        problems: counts broken annotations and missing images.
    """
    if labels is not None:
        pool = labeled_pool(data, [labels], problems)
        return join_objects(pool, read_objects(labels, problems), str(labels), problems)
    if is_named_set(data):
        name, _, split = data.partition(":")
        rows = downloaded(name, split or DEFAULT_SPLIT, data_root.expanduser())
        return _labeled_set(labeled_split(rows, problems), data, problems)
    asked = PoolUri.parse(data)
    if Path(asked.path).is_file():
        return _coco_set(Path(asked.path), asked.options.get("image", ""), problems)
    path, split = _path_and_split(data)
    if years := years_of(path):
        rows = read_split(years, split)
        return _labeled_set(labeled_split(rows, problems), data, problems)
    if path.exists():
        raise LabelError(f"{data}: carries no labels of its own; add --labels")
    kinds = "a VOC devkit, a COCO .json, or voc2007, voc2012 or voc"
    raise PoolError(f"{data}: no such labeled data; give {kinds}")


def is_named_set(data: str) -> bool:
    """Whether this is a name of torchvision's, with or without its split."""
    return data.partition(":")[0] in SETS


def missing_image(where: str, name: str, folder: StoragePath) -> AnnotationError:
    """The error of an annotation whose image is not in the folder of the images."""
    what = f"no image {name!r} in {folder}; ?image=FOLDER behind the json says where they are"
    return AnnotationError(where, what)


def _path_and_split(data: str) -> tuple[Path, str]:
    head, colon, split = data.rpartition(":")
    if Path(data).exists() or not colon or not Path(head).exists():
        return Path(data), DEFAULT_SPLIT
    return Path(head), split


def _coco_images(path: Path, document: Any, problems: Problems) -> list[CocoImage]:
    if not is_coco(document):
        raise LabelError(
            f"{path}: is not COCO JSON (with 'images', 'annotations' and 'categories'); give that, "
            "or a folder of VOC XML"
        )
    return parse_objects(document, str(path), allowed_classes(path.parent), problems)


def _coco_set(path: Path, folder: str, problems: Problems) -> LabeledSet:
    document = load_json(path)
    if parse_archive(document, str(path)) is not None:
        raise LabelError(f"{path}: holds labels without images; give the pool, and it as --labels")
    images = _coco_images(path, document, problems)
    place = image_folder(LocalPath(path), [image.name for image in images], folder)
    found: list[tuple[Item, ObjectLabel]] = []
    for image in images:
        with problems.skipping():
            if place.at(image.name).kind() != "file":
                raise missing_image(f"{image.where}.file_name", image.name, place)
            found.append((place.image(image.name), image.objects.label(image.size)))
    return _labeled_set(found, str(path), problems)


def _labeled_set(
    found: Iterable[tuple[Item, ObjectLabel]], origin: str, problems: Problems
) -> LabeledSet:
    items: list[Item] = []
    labels: list[ObjectLabel] = []
    for item, label in found:
        with problems.skipping():
            sized = _with_size(item, label, f"{origin}: {item.id!r}", problems)
            if sized is not None:
                labels.append(sized)
                items.append(item)
    if not items:
        raise LabelError(f"{origin}: holds no labeled image that can be used")
    return LabeledSet(items, labels, origin)


def _with_size(
    item: Item, label: ObjectLabel, where: str, problems: Problems
) -> ObjectLabel | None:
    """The label with its image's size; its boxes are checked now where that was not known before.

    None if a box that marks something is broken.
    """
    if label.size is not None:
        return label
    try:
        size = size_of(item.read())
    except ImageError as error:
        raise AnnotationError(where, f"the image {error}") from error
    objects = ObjectList()
    columns = label.boxes.tolist(), label.difficult.tolist(), label.crowd.tolist()
    for row, (name, edges, difficult, crowd) in enumerate(zip(label.names, *columns), 1):
        with objects.skipping(problems):
            shown = ", ".join(f"{edge:g}" for edge in edges) + " (edges)"
            box = check_box(tuple(edges), size, f"{where}, object {row} ({name})", shown)
            objects.objects.append(BoxedObject(name, box, difficult, crowd))
    return objects.label(size, label.named) if objects.complete else None
