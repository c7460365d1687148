"""Images in a folder for each class, and folders that look so but are the splits of a data set."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lloss.annotations.problems import Problems
from lloss.errors import LabelError, PoolError
from lloss.pools import FolderPool, Item
from lloss.pools.file_walk import is_hidden
from lloss.text.clean_names import clean_name
from lloss.text.first_names import first_names

_SPLIT = re.compile(
    r"(?:(train|training|trainval|labell?ed)"
    r"|(val|valid|validation|dev|develop|development|eval|evaluation)"
    r"|(test|testing|unlabell?ed|hold-?out))"
    r"(?:[-_ .]?(?:set|split|data|images|imgs|(?:19|20)\d\d))?",
    re.IGNORECASE,
)
"""Names of splits, by kind: to train on, to choose by, to measure on."""

_WRAPPERS = ("images", "image", "imgs", "img", "data", "dataset", "jpegimages", "photos")
"""Folders around the class folders, in lower case."""


@dataclass
class _Folder:
    """Images in a folder, counted."""

    direct: int = 0
    below: dict[str, _Folder] = field(default_factory=dict)

    def add(self, parts: list[str]) -> None:
        """Count an image by the folders that lead to it."""
        folder = self
        for part in parts:
            folder = folder.below.setdefault(part, _Folder())
        folder.direct += 1


def class_folders(root: Path, problems: Problems) -> tuple[list[Item], list[str]]:
    """Images and the class of each: the first folder that leads to it.

    Notes name images deeper than their class folder, folders that are one class together, and
    folders without an image. An image in no class folder is refused, and so are folders that are
    splits, such as ``train`` and ``val``.
    """
    pool = FolderPool(root)
    items, tree = list(pool), _Folder()
    if not items:
        raise PoolError(f"{root}: holds no image")
    for item in items:
        *folders, _ = item.id.split("/")
        if not folders:
            raise LabelError(
                f"{root}: {item.id!r} is not in a class folder; put it in one, "
                "or add --labels labels.csv"
            )
        tree.add(folders)
    classes = {folder: clean_name(folder) for folder in tree.below}
    if nameless := [folder for folder, name in classes.items() if not name]:
        what = f"the class folder {nameless[0]!r} has no visible name; rename it"
        raise LabelError(f"{root}: {what}")
    _refuse_splits(root, tree)
    problems.note(pool.remark())
    if deeper := [item.id for item in items if item.id.count("/") > 1]:
        problems.note(
            f"{root}: {len(deeper)} of {len(items)} images are deeper than their class folder "
            f"({deeper[0]!r}, for example): each is of the class of its first folder"
        )
    _note_folders(root, classes, problems)
    return items, [classes[item.id.partition("/")[0]] for item in items]


def _note_folders(root: Path, classes: Mapping[str, str], problems: Problems) -> None:
    """Note folders of one class, whose names look the same, and folders without an image."""
    for name, count in Counter(classes.values()).items():
        if count > 1:
            both = ", ".join(ascii(folder) for folder, one in classes.items() if one == name)
            problems.note(f"{root}: the folders {both} are one class, {name!r}")
    with os.scandir(root) as entries:
        # An entry's own is_dir() raises on a link to itself.
        found = [os.fsencode(e.name) for e in entries if Path(e).is_dir() and not is_hidden(e.name)]
    shown = (name.decode("utf-8", "backslashreplace") for name in found)
    if empty := sorted(name for name in shown if name not in classes):
        some = first_names([repr(name) for name in empty], 5)
        many = f"{len(empty)} folders hold" if len(empty) > 1 else "1 folder holds"
        problems.note(f"{root}: {many} no image, so no class: {some}")


def _refuse_splits(root: Path, tree: _Folder) -> None:
    split = _found_split(tree)
    if split:
        raise LabelError(_split_message(root, tree, split))
    if len(tree.below) == 1:
        ((wrapper, only),) = tree.below.items()
        if not only.direct and wrapper.lower() in _WRAPPERS:
            inner = _unwrapped(root, tree)
            raise LabelError(f"{root}: its only class would be {wrapper!r}; give {inner}")


def _found_split(tree: _Folder, outer: tuple[str, ...] = (), alone: bool = True) -> tuple[str, ...]:
    """The path of the first folder that is a split; () without one.

    A class may be called ``train``: it is the vehicle where its images are directly in it and
    neither ``test`` nor ``val`` stands beside it. ``alone`` says whether one such name is enough
    where its images are deeper, as classes would be below it.
    """
    kinds = {name: kind for name in tree.below if (kind := _kind(name))}
    several = len(set(kinds.values())) > 1
    no_other = not outer and len(kinds) == len(tree.below)
    for name in sorted(kinds, key=lambda name: (kinds[name], name)):
        if several or no_other or (alone and not tree.below[name].direct):
            return (*outer, name)
    for name, folder in tree.below.items():
        found = _found_split(folder, (*outer, name), alone and len(tree.below) == 1)
        if found:
            return found
    return ()


def _kind(name: str) -> int:
    """Which kind of split a folder's name is of; 0 for none."""
    match = _SPLIT.fullmatch(name.strip())
    return match.lastindex or 0 if match else 0


def _split_message(root: Path, tree: _Folder, split: tuple[str, ...]) -> str:
    path, folder = root, tree
    for name in split:
        path, parent, folder = path / name, folder, folder.below[name]
    others = sorted((name for name in parent.below if name != path.name and _kind(name)), key=_kind)
    shown = " and ".join(map(repr, [path.name, *others]))
    what = "are splits of a data set, not classes" if others else "is a split, not a class"
    remedy = f"give {_unwrapped(path, folder)} as the data"
    if others:
        test = _unwrapped(path.parent / others[-1], parent.below[others[-1]])
        remedy += f" and {test} to measure on (lloss evaluate, or --test of lloss init)"
    if len(split) > 1 and len(tree.below) > 1:
        remedy = "make a tree of classes for each split"
    return (
        f"{path.parent}: {shown} {what}; {remedy}; where it is a class, rename the folder or give "
        "the labels by --labels labels.csv"
    )


def _unwrapped(path: Path, folder: _Folder) -> Path:
    """The folder, or the one around the class folders in it."""
    while not folder.direct and len(folder.below) == 1:
        (name,) = folder.below
        if name.lower() not in _WRAPPERS or folder.below[name].direct:
            return path
        path, folder = path / name, folder.below[name]
    return path
