"""Walk over folders of files: which names are images, which are passed over and counted.

Pools, class trees, shards and folders of annotations all follow this one rule.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lloss.text.counts import counted

if TYPE_CHECKING:
    from lloss.pools.storage import FileName, StoragePath

_IMAGES = "apng bmp gif jfif jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
SUFFIXES = frozenset(f".{end}" for end in _IMAGES.split())
"""The suffixes of image files (compared in lower case)."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
TABLE_SUFFIXES = (".parquet", ".arrow")
CONTAINERS = (*TAR_SUFFIXES, *TABLE_SUFFIXES)
"""The suffixes of files that hold many images."""

_SYSTEM = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "@tmp", "$recycle.bin"}
    | {"lost+found", "system volume information", "__pycache__"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
"""What operating systems, network drives and tools leave in folders (compared in lower case)."""

_SHOWN = 8
_MOST = 1000
"""Suffixes that are counted apart; names that end in a running number have one each."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left there by a system or a tool."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_visible(path: str) -> bool:
    """Whether no part of a path is hidden; ``.`` and ``..`` are not names."""
    return not any(is_hidden(part) for part in path.split("/") if part not in (".", ".."))


def suffix_of(name: str) -> str:
    """The end of a file's name that says its kind, in lower case; "" without one."""
    name = name.lower()
    of_several = next((end for end in CONTAINERS if name.endswith(end)), "")
    return of_several or os.path.splitext(name)[1]  # noqa: PTH122  the name is not a path


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends as those of images do, and is more than that end."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and dot + suffix.lower() in SUFFIXES


@dataclass
class PassedOver:
    """What a walk did not take."""

    files: Counter[str] = field(default_factory=Counter)  # by suffix
    hidden: int = 0
    containers: list[str] = field(default_factory=list)  # paths of files of many images

    def add(self, path: str, suffix: str | None = None) -> None:
        suffix = suffix_of(path.rpartition("/")[2]) if suffix is None else suffix
        if suffix in CONTAINERS:
            self.containers.append(path)
        apart = suffix in self.files or (len(self.files) < _MOST and suffix.isprintable())
        self.files[suffix if apart else ".*"] += 1

    def __add__(self, other: PassedOver) -> PassedOver:
        both = self.files + other.files
        return PassedOver(both, self.hidden + other.hidden, self.containers + other.containers)

    def as_dict(self) -> dict[str, int]:
        """The counts by suffix, the hidden ones as ``hidden``, for JSON."""
        counts = {suffix or "(no suffix)": n for suffix, n in sorted(self.files.items())}
        return {**counts, **({"hidden": self.hidden} if self.hidden else {})}

    def text(self) -> str:
        """Say it to the user; "" if nothing was passed over."""
        parts = []
        if count := self.files.total():
            parts.append(f"{count:,} other file{'s' * (count > 1)} ({_by_suffix(self.files)})")
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden or system files or folders")
        return f"passed over {' and '.join(parts)}" if parts else ""


def walk(
    folder: StoragePath,
    takes: Callable[[str], bool],
    passed: PassedOver,
    leave_out: Container[object] = (),
    prefix: str = "",
    above: tuple[object, ...] = (),
) -> Iterator[tuple[str, FileName]]:
    """Path below the folder, with ``/``, and file name of each file, depth first.

    The order is the same on any machine, and only one folder's names are held at a time.

    Args:
        folder: to walk.
        takes: whether a file of this name is wanted.
        passed: counts what is not; complete when the walk is.
        leave_out: identities of folders not to enter.
        prefix: the path so far.
        above: identities of the folders so far, so that no link leads back up.
    """
    identity = folder.identity()
    if identity is not None and (identity in above or identity in leave_out):
        return

    def keeps(name: str, is_folder: bool) -> bool:
        if is_hidden(name):
            passed.hidden += 1
            return False
        if is_folder or takes(name):
            return True
        passed.add(prefix + name)
        return False

    for name, file, inner in folder.entries(keeps):
        if inner is None:
            yield prefix + name, file
        else:
            below = (*above, identity)
            yield from walk(inner, takes, passed, leave_out, f"{prefix}{name}/", below)


def _by_suffix(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    shown = [f"{n:,} {suffix or 'without suffix'}" for suffix, n in ordered[:_SHOWN]]
    rest = sum(n for _, n in ordered[_SHOWN:])
    return ", ".join(shown + ([counted(rest, "other")] if rest else []))
