"""A folder tree of image files."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lloss.errors import PoolError
from lloss.pools.base import Item, Pool, read_file
from lloss.pools.confinement import OUTSIDE, Confinement
from lloss.pools.failures import Root

SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"]
)
"""What counts as an image file in a folder (compared in lower case)."""


class FolderPool(Pool):
    """Every image file below a folder; the id is the path relative to it, with ``/``.

    Folders are walked depth first, each in the order of its names, so that the order is the same
    on any machine and only one folder's names are held at a time.

    Args:
        root: the folder.
        within: what everything in it must lie in, links followed; None for anywhere. A link to an
            image elsewhere is a bad image then; with one to a folder elsewhere the pool cannot be
            listed.
        leave_out: folders whose images are not of the pool, such as one of masks; by whatever
            path the walk reaches them. The root itself is never left out.
    """

    unique = True

    def __init__(
        self, root: Path, within: Confinement | None = None, leave_out: Iterable[Path] = ()
    ) -> None:
        self.root = root
        self.uri = str(root)
        self._root = Root(root, within)
        self._left_out = _identities(leave_out) - _identities([root])

    def __iter__(self) -> Iterator[Item]:
        for path, id in self._walk(os.fsencode(self.root), "", ()):
            yield Item(id, functools.partial(read_file, path, self._root))

    def ids(self) -> Iterator[str]:
        """Paths below the folder."""
        return (id for _, id in self._walk(os.fsencode(self.root), "", ()))

    def _walk(
        self, folder: bytes, prefix: str, parents: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[bytes, str]]:
        """Path and id of each image file. Paths are bytes: those are what names are."""
        within = self._root.within
        if within is not None and not within.holds_path(folder):
            raise PoolError(f"{os.fsdecode(folder)}: {OUTSIDE}; remove that link")
        try:
            status = os.stat(folder)  # noqa: PTH116  Path knows no bytes
            here = (status.st_dev, status.st_ino)
            if here in parents or here in self._left_out:  # a link back up, or left out
                return
            names, folders = _listed(folder)
        except OSError as error:
            where = os.fsdecode(folder)
            raise PoolError(f"{where}: cannot be listed: {error.strerror}") from error
        escaped: dict[str, bytes] = {}
        for name in names:
            shown = name.decode("utf-8", "backslashreplace")
            if "\\" in shown and escaped.setdefault(shown, name) != name:
                raise PoolError(
                    f"{os.fsdecode(folder)}: two names read {shown!r}, "
                    "one of which is not UTF-8; rename one"
                )
            path, id = os.path.join(folder, name), prefix + shown  # noqa: PTH118
            if name in folders:
                yield from self._walk(path, f"{id}/", (*parents, here))
            else:
                yield path, id

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here an id is its path, so nothing is listed."""
        wanted = list(ids)
        paths = [self.root / id for id in wanted]
        inside = [is_plain_relative(id) and _is_image(path) for id, path in zip(wanted, paths)]
        if self._left_out or not all(inside):
            return super().find(wanted)  # an escaped name, or an error that names the id
        reads = [functools.partial(read_file, path, self._root) for path in paths]
        return [Item(id, read) for id, read in zip(wanted, reads)]


def _identities(folders: Iterable[Path]) -> set[tuple[int, int]]:
    """Device and number of each of these folders that is there."""
    found = set()
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            status = folder.stat()
            found.add((status.st_dev, status.st_ino))
    return found


def _listed(folder: bytes) -> tuple[list[bytes], set[bytes]]:
    """Names of the images and folders in a folder, in order, and which of them are folders.

    Only the names are kept: an entry of the system's takes ten times their memory.
    """
    names, folders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_folder(entry):
                folders.add(entry.name)
            elif not has_image_suffix(os.fsdecode(entry.name)):
                continue
            names.append(entry.name)
    names.sort()
    return names, folders


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends as those of images do, and is more than that end."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and dot + suffix.lower() in SUFFIXES


def _is_image(path: Path) -> bool:
    return has_image_suffix(path.name) and os.path.isfile(path)  # noqa: PTH113  Path.is_file() raises on a long name


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def is_plain_relative(id: str) -> bool:
    """Whether an id is a path that stays below its folder, in its one spelling."""
    parts = id.split("/")
    return "\0" not in id and not any(part in ("", ".", "..") for part in parts)
