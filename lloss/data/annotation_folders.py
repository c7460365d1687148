"""Folders of annotation files."""

from __future__ import annotations

import os
from pathlib import Path

from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.pools.file_walk import PassedOver, has_image_suffix, suffix_of, walk
from lloss.pools.storage import LocalPath

ANNOTATIONS = (".xml",)
"""Suffixes of annotation files; a folder of labels without them is one of masks."""


def holds_annotations(folder: Path) -> bool:
    """Whether a folder has annotation files, in it or below."""

    def takes(name: str) -> bool:
        name = name.lower()  # GDAL writes .aux.xml beside images and masks
        return name.endswith(ANNOTATIONS) and not name.endswith(".aux.xml")

    return any(True for _ in walk(LocalPath(folder), takes, PassedOver()))


def annotation_files(
    folder: Path, suffix: str, wanted: str, problems: Problems, images_beside: bool = False
) -> list[tuple[str, Path]]:
    """Every file of a suffix (in any case) below a folder, with its path relative to the folder.

    ``wanted`` names the files in messages, in the plural. A note counts other files, but images
    where they may be beside.
    """
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such folder of {wanted} (*{suffix})")
    passed = PassedOver()

    def takes(name: str) -> bool:
        beside = images_beside and has_image_suffix(name)
        return beside or name == "classes.txt" or suffix_of(name) == suffix

    paths = walk(LocalPath(folder), takes, passed)
    found = [(id, Path(os.fsdecode(path))) for id, path in paths if suffix_of(id) == suffix]
    others = passed.text()
    if not found:
        what = f"{folder}: holds no {wanted.removesuffix('s')} (*{suffix})"
        raise LabelError(f"{what}; {others}" if others else what)
    problems.note(others and f"{folder}: {others}")
    return found
