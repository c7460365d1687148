"""Images labeled with the objects in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lloss.annotations.box_csv import parse_box_csv
from lloss.annotations.boxes import (
    BoxedObject,
    ListedImage,
    ObjectList,
    check_box,
    usable_images,
)
from lloss.annotations.coco import is_coco, parse_objects
from lloss.annotations.cvat import parse_cvat
from lloss.annotations.fiftyone_labels import OBJECTS, is_fiftyone_export, parse_export
from lloss.annotations.fiftyone_labels import parse_objects as parse_samples
from lloss.annotations.json_fields import load_json
from lloss.annotations.label_studio import is_label_studio
from lloss.annotations.label_studio_objects import parse_regions
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.labelme import LabelMeParser
from lloss.annotations.lloss_json import load_annotations, parse_archive
from lloss.annotations.metadata_jsonl import METADATA_SUFFIXES, parse_row_objects
from lloss.annotations.problems import AnnotationError, Problems
from lloss.annotations.yolo import YAML_SUFFIXES
from lloss.data.annotation_folders import (
    OBJECT_FILES,
    annotation_files,
    file_among,
    holds_labelme,
    holds_xml,
    holds_yolo,
    inner_set,
    remedy_of,
)
from lloss.data.fiftyone_datasets import read_dataset_objects
from lloss.data.label_joining import match_labels
from lloss.data.labeled_set import LabeledSet, usable_set
from lloss.data.voc_folders import DEFAULT_SPLIT, read_split, read_voc_folder, years_of
from lloss.data.yolo_folders import (
    config_of,
    read_yolo_folder,
    read_yolo_labels,
    read_yolo_split,
)
from lloss.errors import ImageError, LabelError, PoolError
from lloss.images.decode import size_of
from lloss.pools import Item, Pool
from lloss.pools.storage import LocalPath, StoragePath, image_folder
from lloss.pools.uri import PoolUri, is_fiftyone

_LISTINGS = {
    ".xml": parse_cvat,
    ".csv": parse_box_csv,
    **dict.fromkeys(METADATA_SUFFIXES, parse_row_objects),
}
"""Parsers of files that list images with their objects, by suffix; JSON is COCO's or others'."""


_OTHERS = {
    "dm_format_version": "Datumaro's own JSON; export the data set as COCO",
    "items": "Datumaro's own JSON; export the data set as COCO",
    "shapes": "LabelMe's JSON of one image; give the folder of them",
    "_via_img_metadata": "VIA's project; export it as COCO",
}
"""What other JSON is, by a key of it, and the remedy."""


def read_objects(path: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """Read the objects of a file or a folder, by the name of the image.

    ``path`` is a COCO JSON, an export of Label Studio, CVAT XML, a CSV of boxes or Hugging Face's
    ``metadata.jsonl`` or ``.parquet`` (names are those of its images), a folder of VOC XML, YOLO
    text or LabelMe JSON (names are the files' own), YOLO's ``data.yaml``, or a file of
    :func:`.write_labels`. An image with a broken annotation is left out, unless that is a box
    without area.
    """
    if is_fiftyone(path):
        return read_dataset_objects(path, problems)
    if path.suffix.lower() in YAML_SUFFIXES:
        return read_yolo_labels(path, problems)
    if path.is_dir():
        return _folder_reader(path)(path, problems)
    if parse := _LISTINGS.get(path.suffix.lower()):
        return _by_name(parse(path, problems))
    document = load_json(path)
    archived = parse_archive(document, str(path), "objects")
    return objects_in(document, path, problems) if archived is None else archived


def _folder_reader(folder: Path) -> Callable[[Path, Problems], dict[str, ObjectLabel]]:
    if file := file_among(folder, OBJECT_FILES):
        return lambda _, problems: read_objects(file, problems)
    if holds_xml(folder):
        return read_voc_folder
    if holds_yolo(folder) or config_of(folder) is not None:
        return read_yolo_folder
    if holds_labelme(folder):
        return _read_labelme_folder
    if inner := inner_set(folder):
        raise LabelError(f"{folder}: holds no labels itself; give a folder in it, such as {inner}")
    return read_voc_folder


def _read_labelme_folder(folder: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """Read every ``.json`` below a folder, by its path without the suffix."""
    parser = LabelMeParser(problems)
    images: list[ListedImage] = []
    for id, path in annotation_files(folder, ".json", "LabelMe JSON files", problems, True):
        name = id[: -len(".json")]
        with problems.skipping(str(folder), name):
            image = parser.parse(path, name)
            images += [image] if image else []
    parser.note_conversions(str(folder))
    return _by_name(usable_images(images, str(folder), problems))


def objects_in(document: Any, path: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """The objects of a COCO JSON, or an export of Label Studio, by the name of the image."""
    if is_label_studio(document):
        return _by_name(parse_regions(document, str(path), problems))
    if is_fiftyone_export(document):
        samples = parse_export(document, str(path), OBJECTS, problems)
        return parse_samples(samples, str(path), False, problems)
    return _by_name(_coco_images(document, path, problems))


def _by_name(images: Iterable[ListedImage]) -> dict[str, ObjectLabel]:
    return {image.name: image.objects.label(image.size) for image in images}


def _coco_images(document: Any, path: Path, problems: Problems) -> list[ListedImage]:
    if not is_coco(document):
        keys = document if isinstance(document, Mapping) else ()
        if known := next((what for key, what in _OTHERS.items() if key in keys), ""):
            raise LabelError(f"{path}: is {known}")
        raise LabelError(
            f"{path}: is not COCO JSON (with 'images', 'annotations' and 'categories') or an "
            "export of Label Studio; docs/labels.md lists what else can be read"
        )
    return parse_objects(document, str(path), problems)


def join_objects(
    pool: Pool, labels: Mapping[str, ObjectLabel], origin: str, problems: Problems
) -> LabeledSet:
    """Join labels with the images of a pool, see :func:`.match_labels`.

    Boxes outside an image whose size the label does not have are found now.
    """
    if not labels and not problems.broken:
        raise LabelError(f"{origin}: holds no label yet; label some images first")
    ids = match_labels(pool, labels, origin, problems)
    found = zip(pool.find(ids.values()), (labels[key] for key in ids))
    return usable_set(found, _sized(problems), origin, "image", problems)


def open_objects(data: str, problems: Problems) -> LabeledSet:
    """Open images that carry labels of their objects.

    Args:
        data: a VOC devkit (its folder, ``VOCdevkit`` in that, or one year in that), optionally with
            ``:SPLIT`` (``train``, ``val``, ``trainval``, which is the default, or ``test``); or a
            COCO JSON, CVAT XML, CSV of boxes or Hugging Face's ``metadata.jsonl`` or ``.parquet``,
            optionally with ``?image=FOLDER``; or a
            ``data.yaml`` of YOLO or its folder, optionally with ``:SPLIT`` (``train``, the default,
            ``val`` or ``test``).
        problems: counts broken annotations and missing images.
    """
    asked = PoolUri.parse(data)
    path, split = path_and_split(data)
    if config := config_of(path):
        found = read_yolo_split(config, split, problems)
        return usable_set(found, _sized(problems), data, "image", problems)
    if Path(asked.path).is_file():
        return _listed_set(Path(asked.path), asked.options.get("image", ""), problems)
    if years := years_of(path):
        found = read_split(years, split or DEFAULT_SPLIT, problems)
        return usable_set(found, _sized(problems), data, "image", problems)
    if path.exists():
        raise LabelError(f"{data}: carries no labels of its own; {remedy_of(path)}")
    raise PoolError(
        f"{data}: no such labeled data; give a VOC devkit's folder, a COCO .json or a data.yaml"
    )


def missing_image(where: str, name: str, folder: StoragePath) -> AnnotationError:
    """Name an image that is not in the folder of the images."""
    what = f"no image {name!r} in {folder}; ?image=FOLDER behind the file says where they are"
    return AnnotationError(where, what)


def path_and_split(data: str) -> tuple[Path, str]:
    """The path, and the split behind its colon; "" without one."""
    head, colon, split = data.rpartition(":")
    if Path(data).exists() or not colon or not Path(head).exists():
        return Path(data), ""
    return Path(head), split


def _listed_set(path: Path, folder: str, problems: Problems) -> LabeledSet:
    if parse := _LISTINGS.get(path.suffix.lower()):
        images = parse(path, problems)
    else:
        images = _coco_images(load_annotations(path), path, problems)
    place = image_folder(LocalPath(path), [image.name for image in images], folder)
    found: list[tuple[Item, ObjectLabel]] = []
    for image in images:
        with problems.skipping():
            if place.at(image.name).kind() != "file":
                raise missing_image(image.where, image.name, place)
            found.append((place.image(image.name), image.objects.label(image.size)))
    return usable_set(found, _sized(problems), str(path), "image", problems)


def _sized(problems: Problems) -> Callable[[Item, ObjectLabel, str], ObjectLabel | None]:
    """Return what gives a label its image's size, and checks boxes where that was not known.

    It returns None if a box that marks something is broken.
    """

    def check(item: Item, label: ObjectLabel, where: str) -> ObjectLabel | None:
        if label.size is not None:
            return label
        try:
            size = size_of(item.read())
        except ImageError as error:
            raise AnnotationError(where, f"the image {error}") from error
        objects = ObjectList()
        scale = np.array((size[::-1] * 2) if label.shares else 1.0)
        columns = (label.boxes * scale).tolist(), label.difficult.tolist(), label.crowd.tolist()
        for row, (name, edges, difficult, crowd) in enumerate(zip(label.names, *columns), 1):
            with objects.skipping(problems):
                place = f"{where}, object {row} ({name})"
                box = check_box(tuple(edges), size, place, edges, "edges")
                objects.objects.append(BoxedObject(name, box, difficult, crowd))
        return objects.label(size) if objects.complete else None

    return check
