"""Folders of annotation files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from lloss.annotations.problems import Problems
from lloss.annotations.yolo import CLASS_LISTS, YAML_FILES, is_row
from lloss.errors import LabelError
from lloss.pools.file_walk import PassedOver, has_image_suffix, suffix_of, walk
from lloss.pools.storage import LocalPath

_CLASS_FILES = (*CLASS_LISTS, *YAML_FILES)

_METADATA = ("metadata.jsonl", "metadata.parquet")  # of Hugging Face

OBJECT_FILES = ("_annotations.coco.json", "_annotations.csv", *_METADATA)
"""Files of objects that stand among their images; those that begin with ``_`` are Roboflow's."""

CLASS_FILES = ("_classes.csv", "metadata.csv", *_METADATA)
"""Files of classes that stand among their images."""


def file_among(folder: Path, names: Sequence[str]) -> Path | None:
    """The annotation file among the images of a folder; None without, refuse several."""
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise LabelError(f"{folder}: holds {both}; give one of them by --labels")
    beside = found and any(has_image_suffix(entry.name) for entry in os.scandir(folder))
    return found[0] if beside else None


def remedy_of(folder: Path) -> str:
    """How to give the labels of a folder that are not its own, for a message."""
    if inner := inner_set(folder):
        return f"give one of its folders, such as {inner}"
    return f"add --labels {folder}" if holds_annotations(folder) else "add --labels"


def inner_set(folder: Path) -> Path | None:
    """The first folder in a folder that has a file of objects, such as a split of a data set."""
    return min(
        (path.parent for name in OBJECT_FILES for path in folder.glob(f"*/{name}")), default=None
    )


def holds_annotations(folder: Path) -> bool:
    """Whether a folder has annotation files, in it or below; others are folders of masks."""
    kinds = (holds_xml, holds_yolo, holds_labelme)
    return bool(file_among(folder, OBJECT_FILES)) or any(holds(folder) for holds in kinds)


def holds_xml(folder: Path) -> bool:
    """Whether a folder has XML annotations, in it or below."""

    def takes(name: str) -> bool:
        name = name.lower()  # GDAL writes .aux.xml beside images and masks
        return name.endswith(".xml") and not name.endswith(".aux.xml")

    return any(True for _ in walk(LocalPath(folder), takes, PassedOver()))


def holds_yolo(folder: Path) -> bool:
    """Whether a text file in a folder, or below, begins with a row of YOLO's."""
    files = walk(LocalPath(folder), is_yolo_name, PassedOver())
    return any(is_row(first_line(os.fsdecode(path))) for _, path in files)


def holds_labelme(folder: Path) -> bool:
    """Whether a JSON in a folder, or below, looks like one of LabelMe's."""
    files = walk(LocalPath(folder), lambda name: suffix_of(name) == ".json", PassedOver())
    return any('"shapes"' in _start(os.fsdecode(path)) for _, path in files)


def is_yolo_name(name: str) -> bool:
    """Whether a file of this name may be one of YOLO's labels."""
    return suffix_of(name) == ".txt" and name not in CLASS_LISTS


def first_line(path: str | Path) -> str:
    """The first line of a text file, cut off after 4,096 bytes; "" if it cannot be read."""
    return _start(path).partition("\n")[0].strip()


def _start(path: str | Path) -> str:
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        return file.read(1 << 12).decode("utf-8-sig", "replace")
    return ""


def annotation_files(
    folder: Path, suffix: str, wanted: str, problems: Problems, images_beside: bool = False
) -> list[tuple[str, Path]]:
    """Every file of a suffix (in any case) below a folder, with its path relative to the folder.

    ``wanted`` names the files in messages, in the plural. A note counts other files, but images
    where they may be beside. Two whose names differ in the suffix's case alone are refused.
    """
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such folder of {wanted} (*{suffix})")
    passed = PassedOver()

    def takes(name: str) -> bool:
        beside = images_beside and has_image_suffix(name)
        return beside or name in _CLASS_FILES or suffix_of(name) == suffix

    paths = walk(LocalPath(folder), takes, passed)
    found = [(id, Path(os.fsdecode(path))) for id, path in paths if suffix_of(id) == suffix]
    others = passed.text()
    if not found:
        what = f"{folder}: holds no {wanted.removesuffix('s')} (*{suffix})"
        raise LabelError(f"{what}; {others}" if others else what)
    stems: dict[str, str] = {}
    for id, path in found:
        if stems.setdefault(id[: -len(suffix)], id) != id:
            raise LabelError(f"{path}: another file has its name in other letters; remove one")
    problems.note(others and f"{folder}: {others}")
    return found
