"""Folders of annotation files."""

from __future__ import annotations

import os
from pathlib import Path

from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.pools.file_walk import PassedOver, has_image_suffix, suffix_of, walk
from lloss.pools.storage import LocalPath


def holds_xml(folder: Path) -> bool:
    """Whether a folder has XML annotations, in it or below."""

    def takes(name: str) -> bool:
        name = name.lower()  # GDAL writes .aux.xml beside images and masks
        return name.endswith(".xml") and not name.endswith(".aux.xml")

    return any(True for _ in walk(LocalPath(folder), takes, PassedOver()))


def annotation_files(
    folder: Path, suffix: str, wanted: str, problems: Problems, images_beside: bool = False
) -> list[tuple[str, Path]]:
    """Every file of a suffix (in any case) below a folder, with its path relative to the folder.

    Args:
        folder: of annotations.
        suffix: of the files, in lower case.
        wanted: the name of the files in messages, in the plural.
        problems: gets a note of other files.
        images_beside: whether images may be in the folder too, without a note.
    """
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such folder of {wanted} (*{suffix})")
    passed = PassedOver()

    def takes(name: str) -> bool:
        expected = name == "classes.txt" or (images_beside and has_image_suffix(name))
        return expected or suffix_of(name) == suffix

    paths = walk(LocalPath(folder), takes, passed)
    found = [(id, Path(os.fsdecode(path))) for id, path in paths if suffix_of(id) == suffix]
    text = passed.text()
    if not found:
        besides = f"; {text}" if text else ""
        raise LabelError(f"{folder}: holds no {wanted.removesuffix('s')} (*{suffix}){besides}")
    if text:
        problems.note(f"{folder}: {text}")
    return found
