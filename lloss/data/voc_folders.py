"""Folders of PASCAL VOC: XML files, and the splits of a devkit.

::

    VOCdevkit/VOC2007/Annotations/000005.xml
                      JPEGImages/000005.jpg
                      ImageSets/Main/trainval.txt     a name a line
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import AnnotationError, Problems
from lloss.annotations.voc import parse_voc
from lloss.data.annotation_folders import annotation_files
from lloss.data.id_matching import agree
from lloss.errors import ImageError, PoolError
from lloss.pools import Item
from lloss.pools.file_walk import SUFFIXES
from lloss.pools.image_files import ImageRoot, read_file

DEFAULT_SPLIT = "trainval"


def read_voc_folder(folder: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """Read every ``.xml`` below a folder, or one year of a devkit, by its path without the suffix.

    A note counts files whose ``<filename>`` is another name than their own.
    """
    inner = folder / "Annotations"
    root = inner if inner.is_dir() else folder
    labels: dict[str, ObjectLabel] = {}
    others: list[str] = []
    for id, path in annotation_files(root, ".xml", "XML annotations", problems, True):
        key, label = id[: -len(".xml")], None
        with problems.skipping():
            label = _read_xml(path, id, others, problems)
        if label is None:
            problems.mark_unusable(str(folder), key)
        else:
            labels[key] = label
    _note_others(folder, others, problems)
    return labels


def _read_xml(path: Path, id: str, others: list[str], problems: Problems) -> ObjectLabel | None:
    """Read a file; add it to ``others`` if its ``<filename>`` is not its own name."""
    try:
        named, label = parse_voc(read_file(path), path, problems)
    except ImageError as error:
        raise AnnotationError(str(path), str(error)) from error
    if named and not agree(named, path.stem):
        others.append(f"{id!r} with {named!r}")
    return label


def _note_others(folder: Path, others: list[str], problems: Problems) -> None:
    if others:
        problems.note(
            f"{folder}: {len(others)} annotation files have a <filename> that is not their own "
            f"name, which counts ({others[0]}, for example)"
        )


def years_of(path: Path) -> list[Path]:
    """The folders ``VOC20xx`` that a path means: itself, below it, or below its ``VOCdevkit``."""
    if (path / "JPEGImages").is_dir() and (path / "Annotations").is_dir():
        return [path]
    devkit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    if not devkit.is_dir():
        return []
    years = [year for year in devkit.glob("VOC*") if (year / "Annotations").is_dir()]
    return sorted(years)


def read_split(
    years: list[Path], split: str, problems: Problems
) -> Iterator[tuple[Item, ObjectLabel]]:
    """Read the images of a split with their labels, in every year that has it.

    Ids are paths below ``JPEGImages``, with the year before them where there are several. A note
    counts files whose ``<filename>`` is another name than their own.
    """
    listings = {year: year / "ImageSets" / "Main" / f"{split}.txt" for year in years}
    present = [year for year, listing in listings.items() if listing.is_file()]
    if not present:
        raise PoolError(
            f"{listings[years[0]]}: no such split; choose another, or give JPEGImages as the data "
            "and the annotations with --labels"
        )
    for year in present:
        images, seen, others = year / "JPEGImages", set[str](), list[str]()
        root, prefix = ImageRoot(images), f"{year.name}/" if len(present) > 1 else ""
        for number, name in enumerate(_lines(listings[year]), 1):
            where = f"{listings[year]}, line {number}"
            with problems.skipping():
                if not name:
                    continue
                if name in seen:
                    raise AnnotationError(where, f"the image {name!r} is listed twice")
                seen.add(name)
                image, annotation = _image(images, name), year / "Annotations" / f"{name}.xml"
                for file in (image, annotation):
                    if not file.is_file():
                        raise AnnotationError(where, f"the file {file} is missing")
                label = _read_xml(annotation, annotation.name, others, problems)
                if label is not None:
                    id = prefix + image.relative_to(images).as_posix()
                    read = functools.partial(read_file, image, root)
                    yield Item(id, read, file=os.fsencode(image)), label
        _note_others(year, others, problems)


def _lines(listing: Path) -> list[str]:
    try:
        return [line.strip() for line in listing.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(f"{listing}: cannot be read: {error}") from error


def _image(folder: Path, name: str) -> Path:
    """The image of this name, with whatever suffix; as ``.jpg`` if it is missing."""
    ends = (".jpg", *sorted(SUFFIXES))
    names = [name + case(end) for end in ends for case in (str, str.upper)]
    paths = [folder / one for one in names]
    return next((path for path in paths if path.is_file()), paths[0])
