"""Images in a folder for each class, and folders that look so but are the splits of a data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lloss.annotations.problems import Problems
from lloss.errors import LabelError, PoolError
from lloss.pools import FolderPool, Item
from lloss.text.clean_names import clean_name

_SPLIT = re.compile(
    r"(?:(train|training|trainval|labell?ed)"
    r"|(val|valid|validation|dev|develop|development|eval|evaluation)"
    r"|(test|testing|unlabell?ed|hold-?out))"
    r"(?:[-_ .]?(?:set|split|data|images|imgs|(?:19|20)\d\d))?",
    re.IGNORECASE,
)
"""Names of splits, by kind: to train on, to choose by, to measure on."""


def class_folders(root: Path, problems: Problems) -> tuple[list[Item], list[str]]:
    """Images and the class of each: the first folder that leads to it.

    Notes name images deeper than their class folder, and folders that are one class together. An
    image in no class folder is refused, and so are folders that are splits, such as ``train`` and
    ``val``.
    """
    pool = FolderPool(root)
    items = list(pool)
    if not items:
        raise PoolError(f"{root}: holds no image")
    stray = next((item.id for item in items if "/" not in item.id), None)
    if stray is not None:
        raise LabelError(
            f"{root}: {stray!r} is not in a class folder; put it in one, or add --labels labels.csv"
        )
    _refuse_splits(root, items)
    folders = [item.id.partition("/")[0] for item in items]
    classes = {folder: clean_name(folder) for folder in folders}
    nameless = next((folder for folder, name in classes.items() if not name), None)
    if nameless is not None:
        raise LabelError(f"{root}: the class folder {nameless!r} has no visible name; rename it")
    problems.note(pool.remark())
    if deeper := [item.id for item in items if item.id.count("/") > 1]:
        problems.note(
            f"{root}: {len(deeper)} of {len(items)} images are deeper than their class folder "
            f"({deeper[0]!r}, for example): each is of the class of its first folder"
        )
    for name, count in Counter(classes.values()).items():
        if count > 1:
            both = ", ".join(ascii(folder) for folder, one in classes.items() if one == name)
            problems.note(f"{root}: the folders {both} are one class, {name!r}")
    return items, [classes[folder] for folder in folders]


def _refuse_splits(root: Path, items: Sequence[Item]) -> None:
    """Refuse folders that are splits.

    A class may be called ``train``: it is the vehicle where its images are directly in it, and
    neither ``test`` nor ``val`` is beside it.
    """
    paths = [item.id.split("/") for item in items]
    direct = {folders[0] for folders in paths if len(folders) == 2}
    kinds = {
        folders[0]: match.lastindex or 0
        for folders in paths
        if (match := _SPLIT.fullmatch(folders[0].strip()))
    }
    if len(set(kinds.values())) < 2 and kinds.keys() <= direct:
        _refuse_inner_splits(root, items)
        return
    first, *others = sorted(kinds, key=lambda name: (kinds[name], name))
    what = "are splits of a data set, not classes" if others else "is a split, not a class"
    remedy = f"give {root / first} as the data"
    if others:
        test = root / others[-1]
        remedy += f" and {test} to measure on (lloss evaluate, or --test of lloss init)"
    raise LabelError(
        f"{root}: {' and '.join(map(repr, [first, *others]))} {what}; {remedy}; where it is a "
        "class, rename the folder or give the labels by --labels labels.csv"
    )


def _refuse_inner_splits(root: Path, items: Sequence[Item]) -> None:
    """Refuse splits inside of class folders: images to measure on would be trained on."""
    found: dict[int, str] = {}
    for item in items:
        for name in item.id.split("/")[1:-1]:
            if match := _SPLIT.fullmatch(name.strip()):
                found.setdefault(match.lastindex or 0, item.id)
    if len(found) > 1:
        some = " and ".join(repr(found[kind]) for kind in sorted(found))
        raise LabelError(
            f"{root}: {some} are of different splits of a data set; make a tree of classes for "
            "each split, or give the labels by --labels labels.csv"
        )
