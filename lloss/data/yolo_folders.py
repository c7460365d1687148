"""Data sets of YOLO: a tree of images, and beside it one of labels.

::

    data.yaml               names of the classes; train, val, test: folders or lists of images
    images/train/0001.jpg   or train/images/0001.jpg
    labels/train/0001.txt   or train/labels/0001.txt; beside the image if no folder is ``images``
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.person_record import Person
from lloss.annotations.problems import AnnotationError, Problems
from lloss.annotations.yolo import (
    YAML_FILES,
    YAML_SUFFIXES,
    YoloConfig,
    YoloParser,
    find_config,
    read_config,
)
from lloss.annotations.yolo_pose import parse_rows
from lloss.data.annotation_folders import annotation_files, first_line, is_yolo_name
from lloss.errors import ImageError, LabelError, PoolError
from lloss.images.decode import size_of
from lloss.pools import FolderPool, Item
from lloss.pools.file_walk import PassedOver, has_image_suffix, walk
from lloss.pools.image_files import ImageRoot, read_file
from lloss.pools.storage import LocalPath
from lloss.text.counts import part
from lloss.text.image_paths import image_path

DEFAULT_SPLIT = "train"
SPLITS = ("train", "val", "test")


def config_of(path: Path) -> Path | None:
    """The ``data.yaml`` that a path means: the file itself, or the one in the folder."""
    if path.suffix.lower() in YAML_SUFFIXES and path.is_file():
        return path
    return next((path / name for name in YAML_FILES if (path / name).is_file()), None)


def read_yolo_folder(folder: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """Read every ``.txt`` below a folder, by its path without the suffix.

    Where folders are called ``labels``, other text files are left out, and the path is that of the
    image, in ``images``.
    """
    files = annotation_files(folder, ".txt", "YOLO labels", problems, True)
    files = [
        (id, path)
        for id, path in files
        # A list of a split begins with the name of an image.
        if is_yolo_name(path.name) and not has_image_suffix(first_line(path))
    ]
    inside = [(id, path) for id, path in files if "labels" in id.split("/")[:-1]]
    parser = YoloParser(find_config(folder), problems)
    labels: dict[str, ObjectLabel] = {}
    for id, path in inside or files:
        key = _swapped(id, "labels", "images")[: -len(".txt")]
        if (label := _read(path, parser)) is None:
            problems.mark_unusable(str(folder), key)
        else:
            labels[key] = label
    parser.note_conversions(str(folder))
    return labels


def read_yolo_labels(path: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """Read the labels of the images to train on of a ``data.yaml``, by the images' ids.

    Images without a label file are not labeled yet.
    """
    config = read_config(path)
    parser = YoloParser(config, problems)
    labels: dict[str, ObjectLabel] = {}
    for item, file in _split(config, DEFAULT_SPLIT, problems):
        if file.is_file():
            label = _read(file, parser)
            if label is None:
                problems.mark_unusable(str(path), item.id)
            else:
                labels[item.id] = label
    parser.note_conversions(str(path))
    return labels


def read_yolo_split(
    path: Path, split: str, problems: Problems
) -> Iterator[tuple[Item, ObjectLabel]]:
    """Read the images of a split of a ``data.yaml`` with their labels.

    Ids are paths below the data set's folder. An image without a label file shows no object; a note
    counts those.
    """
    config = read_config(path)
    parser = YoloParser(config, problems)
    images = _split(config, split or DEFAULT_SPLIT, problems)
    missing = [file for _, file in images if not file.is_file()]
    if len(missing) == len(images):
        raise LabelError(
            f"{path}: none of the {len(images)} images has a label file; that of "
            f"{images[0][0].id!r} is looked for at {missing[0]}"
        )
    if missing:
        problems.note(
            f"{path}: {part(len(missing), len(images), 'images', 'have')} no label file "
            f"({missing[0].name}, for example): taken as showing no object"
        )
    absent = set(missing)
    nothing = parser.parse(b"", path)
    for item, file in images:
        label = nothing if file in absent else _read(file, parser)
        if label is not None:
            yield item, label
    parser.note_conversions(str(path))


def read_yolo_persons(path: Path, split: str, problems: Problems) -> Iterator[Person]:
    """Read the persons of a split of a ``data.yaml``, with the images' ids as their names."""
    config = read_config(path)
    for item, file in _split(config, split or DEFAULT_SPLIT, problems):
        with problems.skipping():
            if file.is_file():
                try:
                    data, size = read_file(file), size_of(item.read())
                except ImageError as error:
                    raise AnnotationError(str(file), f"it or its image {error}") from error
                yield from parse_rows(data, file, config, item.id, size, problems)


def _read(path: Path, parser: YoloParser) -> ObjectLabel | None:
    label = None
    with parser.problems.skipping():
        try:
            label = parser.parse(read_file(path), path)
        except ImageError as error:
            raise AnnotationError(str(path), str(error)) from error
    return label


def _split(config: YoloConfig, split: str, problems: Problems) -> list[tuple[Item, Path]]:
    """The images of a split, each with the place of its label file."""
    written = config.fields.get(split) or []
    entries = written if isinstance(written, list) else [written]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        known = ", ".join(name for name in SPLITS if config.fields.get(name)) or "none"
        raise PoolError(f"{config.path}: no such split as {split!r}; it has {known}")
    found: dict[str, tuple[Item, Path]] = {}
    owners: dict[Path, str] = {}  # the image of each label file
    root = ImageRoot(config.root)
    for entry in entries:
        place = _place(config, entry)
        listed = _listed(place, config, problems) if place.is_file() else _walked(place, problems)
        for path in listed:
            id, read = _id(path, config.root), functools.partial(read_file, path, root)
            label = label_file(path)
            if (other := owners.setdefault(label, id)) != id and label.is_file():
                raise LabelError(f"{label}: is of two images, {other!r} and {id!r}; rename one")
            found[id] = Item(id, read, file=os.fsencode(path)), label
    if not found:
        raise PoolError(f"{config.path}: {split}: {entries[0]} holds no image")
    return list(found.values())


def _place(config: YoloConfig, entry: str) -> Path:
    """The folder or list of a split; exporters write ``../train`` for a folder beside the file."""
    inside = entry = entry.replace("\\", "/")
    while inside.startswith("../"):
        inside = inside[3:]
    folders = config.root, config.path.parent
    places = [folder / path for path in (entry, inside) for folder in folders]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise PoolError(f"{config.path}: the folder {places[0]} is missing; correct its path")
    return found


def _walked(folder: Path, problems: Problems) -> Iterator[Path]:
    """The images of a folder; report label files without an image."""
    labels = set[Path]()
    for item in FolderPool(folder):
        assert isinstance(item.file, bytes)
        path = Path(os.fsdecode(item.file))
        labels.add(label_file(path))
        yield path
    beside = label_file(folder / "any.jpg").parent
    if beside.is_dir():
        for _, name in walk(LocalPath(beside), is_yolo_name, PassedOver()):
            path = Path(os.fsdecode(name))
            with problems.skipping():
                if path not in labels:
                    raise AnnotationError(str(path), f"no image of this name in {folder}")


def _listed(listing: Path, config: YoloConfig, problems: Problems) -> Iterator[Path]:
    """The images that a text file names, relative to the data set's folder or to its own."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(f"{listing}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        line = line.strip().replace("\\", "/")
        places = config.root / line, listing.parent / line
        path = next((place for place in places if place.is_file()), None)
        with problems.skipping():
            if line and path is None:
                where = f"{listing}, line {number}"
                raise AnnotationError(where, f"the file {places[0]} is missing")
        if path is not None:
            yield path


def label_file(image: Path) -> Path:
    """Where the label of an image is: below ``labels`` instead of the last ``images``."""
    return Path(_swapped(image.as_posix(), "images", "labels")).with_suffix(".txt")


def _swapped(path: str, old: str, new: str) -> str:
    """A path whose last folder ``old`` is called ``new``."""
    *folders, name = path.split("/")
    if old in folders:
        folders[len(folders) - 1 - folders[::-1].index(old)] = new
    return "/".join([*folders, name])


def _id(path: Path, root: Path) -> str:
    """The path below the data set's folder; of an image elsewhere, all of its path."""
    inside = os.path.relpath(path, root).replace(os.sep, "/")
    return image_path(str(path.absolute())) if inside.startswith("../") else inside
