"""A folder tree of image files."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lloss.errors import PoolError
from lloss.pools.confinement import OUTSIDE, Confinement
from lloss.pools.file_walk import (
    SUFFIXES,
    TAR_SUFFIXES,
    PassedOver,
    Tree,
    has_image_suffix,
    is_visible,
    suffix_of,
    walk,
)
from lloss.pools.pool import Item, Pool, read_file
from lloss.pools.read_failures import Root

__all__ = ["SUFFIXES", "FolderPool", "LocalTree", "has_image_suffix", "is_plain_relative"]


class FolderPool(Pool):
    """Every image file below a folder; the id is the path relative to it, with ``/``.

    Args:
        root: the folder.
        within: what everything in it must lie in, links followed; None for anywhere. A link to an
            image elsewhere is a bad image then; with one to a folder elsewhere the pool cannot be
            listed.
        leave_out: folders whose images are not of the pool, such as one of masks; by whatever
            path the walk reaches them. The root itself is never left out, and a folder need not
            be there yet.
    """

    unique = True

    def __init__(
        self, root: Path, within: Confinement | None = None, leave_out: Iterable[Path] = ()
    ) -> None:
        self.root = root
        self.uri = str(root)
        self._root = Root(root, within)
        self._leave_out = tuple(leave_out)
        self._passed: PassedOver | None = None

    def __iter__(self) -> Iterator[Item]:
        for id, path in self._walk():
            yield Item(id, functools.partial(read_file, path, self._root), file=path)

    def ids(self) -> Iterator[str]:
        """Paths below the folder."""
        return (id for id, _ in self._walk())

    def passed_over(self) -> PassedOver | None:
        """See :meth:`Pool.passed_over`; the folder is walked for it unless it was before."""
        if self._passed is None:
            self.count()
        return self._passed

    def _walk(self) -> Iterator[tuple[str, bytes]]:
        """Id and path of each image file. Paths are bytes: those are what names are."""
        passed = PassedOver()
        tree = LocalTree(os.fsencode(self.root), self._root.within, self._left_out())
        yield from checked_images(self.uri, walk(tree, has_image_suffix, passed), passed)
        self._passed = passed

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here an id is its path, so nothing is listed."""
        wanted = list(ids)
        if not all(map(self._lists, wanted)):
            return super().find(wanted)  # an escaped name, or an error that names the id
        paths = [os.fsencode(self.root / id) for id in wanted]
        reads = [functools.partial(read_file, path, self._root) for path in paths]
        return [Item(id, read, file=path) for id, read, path in zip(wanted, reads, paths)]

    def _lists(self, id: str) -> bool:
        """Whether the walk reaches a file of this id."""
        if not (is_plain_relative(id) and is_visible(id) and _is_image(self.root / id)):
            return False
        folders = [self.root / folder for folder in Path(id).parents] if self._leave_out else []
        return not self._left_out() & _identities(folders)

    def _left_out(self) -> frozenset[tuple[int, int]]:
        """Device and number of the folders to leave out that are there by now."""
        return frozenset(_identities(self._leave_out) - _identities([self.root]))


def checked_images(
    root: str, images: Iterable[tuple[str, bytes]], passed: PassedOver
) -> Iterator[tuple[str, bytes]]:
    """The images that a walk over ``root`` finds, if no shards or tables lie among them.

    Args:
        root: the folder.
        images: path below it and handle of each.
        passed: of that walk.

    Raises:
        PoolError: the folder holds both; named are an image and a shard or table.
    """
    first = ""
    for id, handle in images:
        first = first or id
        if passed.containers:
            break
        yield id, handle
    if first and passed.containers:
        other = passed.containers[0]
        folder, _, name = f"{root}/{other}".rpartition("/")
        end = name[-len(suffix_of(name)) :]
        raise PoolError(
            f"{root}: holds images (such as {first!r}) and {_kind(name)} (such as {other!r}), "
            f"and a pool is of one kind; for the {_kind(name)} give "
            f"'{folder}/*{end}', for the images move those files elsewhere"
        )


def _kind(name: str) -> str:
    return "shards" if suffix_of(name) in TAR_SUFFIXES else "tables"


class LocalTree(Tree):
    """A folder of this machine.

    Args:
        path: of the folder.
        within: what it must lie in, links followed; None for anywhere.
        left_out: device and number of the folders not to enter.
        parents: device and number of the folders above, so that no link leads back up.
    """

    def __init__(
        self,
        path: bytes,
        within: Confinement | None = None,
        left_out: frozenset[tuple[int, int]] = frozenset(),
        parents: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.path, self.within = path, within
        self._left_out, self._parents = left_out, parents

    def entries(
        self, keeps: Callable[[str, bool], bool]
    ) -> Iterator[tuple[str, bytes, LocalTree | None]]:
        """See :class:`Tree`.

        Raises:
            PoolError: the folder cannot be listed, or two names cannot be told apart.
        """
        if self.within is not None and not self.within.holds_path(self.path):
            raise PoolError(f"{os.fsdecode(self.path)}: {OUTSIDE}; remove that link")
        try:
            status = os.stat(self.path)  # noqa: PTH116  Path knows no bytes
            here = (status.st_dev, status.st_ino)
            if here in self._parents or here in self._left_out:
                return
            names, folders = _listed(self.path, keeps)
        except OSError as error:
            where = os.fsdecode(self.path)
            raise PoolError(f"{where}: cannot be listed: {error.strerror}") from error
        escaped: dict[str, bytes] = {}
        for name in names:
            shown = _shown(name)
            if "\\" in shown and escaped.setdefault(shown, name) != name:
                raise PoolError(
                    f"{os.fsdecode(self.path)}: two names read {shown!r}, "
                    "one of which is not UTF-8; rename one"
                )
            path, inner = os.path.join(self.path, name), None  # noqa: PTH118
            if name in folders:
                parents = (*self._parents, here)
                inner = LocalTree(path, self.within, self._left_out, parents)
            yield shown, path, inner


def _identities(folders: Iterable[Path]) -> set[tuple[int, int]]:
    """Device and number of each of these folders that is there."""
    found = set()
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            status = folder.stat()
            found.add((status.st_dev, status.st_ino))
    return found


def _listed(folder: bytes, keeps: Callable[[str, bool], bool]) -> tuple[list[bytes], set[bytes]]:
    """Names that are kept, in order, and which of them are folders.

    Only the names are held: an entry of the system's takes ten times their memory.
    """
    names, folders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = _is_folder(entry)
            if keeps(_shown(entry.name), is_folder):
                names.append(entry.name)
                if is_folder:
                    folders.add(entry.name)
    names.sort()
    return names, folders


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


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
