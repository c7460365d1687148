"""A folder tree of image files."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lloss.errors import PoolError
from lloss.pools.base import Item, Pool, read_file

SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"]
)
"""What counts as an image file in a folder (compared in lower case)."""


class FolderPool(Pool):
    """Every image file below a folder; the id is the path relative to it, with ``/``.

    Folders are walked depth first, each in the order of its names, so that the order is the same
    on any machine and only one folder's names are held at a time.
    """

    unique = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def __iter__(self) -> Iterator[Item]:
        for path, id in self._walk(self.root, "", ()):
            yield Item(id, functools.partial(read_file, path))

    def ids(self) -> Iterator[str]:
        """Paths below the folder."""
        return (id for _, id in self._walk(self.root, "", ()))

    def _walk(
        self, folder: Path, prefix: str, parents: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[Path, str]]:
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in parents:  # a symbolic link back to a folder that we are inside of
                return
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise PoolError(f"{folder}: cannot be listed: {error.strerror}") from error
        escaped: dict[str, str] = {}
        for entry in listed:
            name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            if "\\" in name and escaped.setdefault(name, entry.name) != entry.name:
                raise PoolError(
                    f"{folder}: two names read {name!r}, one of which is not UTF-8; rename one"
                )
            id = prefix + name
            if _is_folder(entry):
                yield from self._walk(Path(entry.path), f"{id}/", (*parents, here))
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                yield Path(entry.path), id

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here an id is its path, so nothing is listed."""
        wanted = list(ids)
        paths = [self.root / id for id in wanted]
        inside = [is_plain_relative(id) and _is_image(path) for id, path in zip(wanted, paths)]
        if not all(inside):
            return super().find(wanted)  # an escaped name, or an error that names the id
        return [Item(id, functools.partial(read_file, path)) for id, path in zip(wanted, paths)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and os.path.isfile(path)  # noqa: PTH113  Path.is_file() raises on a long name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def is_plain_relative(id: str) -> bool:
    """Whether an id is a path that stays below its folder, in its one spelling."""
    parts = id.split("/")
    return "\0" not in id and not any(part in ("", ".", "..") for part in parts)
