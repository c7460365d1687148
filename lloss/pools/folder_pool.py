"""A folder tree of image files, on this machine or in a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lloss.errors import PoolError
from lloss.pools.file_walk import PassedOver, has_image_suffix, is_visible, suffix_of, walk
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import FileName, LocalPath, StoragePath


class FolderPool(Pool):
    """Every image file below a folder; the id is the path relative to it, with ``/``.

    Args:
        root: the folder. Where its ``within`` is set, a link to an image elsewhere is a bad image;
            with a link to a folder elsewhere the pool cannot be listed.
        leave_out: folders of this machine, such as one of masks, whose images are not of the pool;
            by whatever path the walk reaches them. They may not exist yet; the root always stays.
        uri: the pool's string; the path by default.
    """

    unique = True

    def __init__(
        self, root: StoragePath | Path, leave_out: Iterable[Path] = (), uri: str = ""
    ) -> None:
        self.root = LocalPath(root) if isinstance(root, Path) else root
        self.uri = uri or str(self.root)
        self.remote = self.root.remote
        self._leave_out = tuple(LocalPath(folder) for folder in leave_out)
        self.indexed = not self._leave_out
        self._passed: PassedOver | None = None

    def __iter__(self) -> Iterator[Item]:
        return (self.root.image(id, file=file) for id, file in self._walk())

    def ids(self) -> Iterator[str]:
        return (id for id, _ in self._walk())

    def passed_over(self) -> PassedOver | None:
        if self._passed is None and not self.remote:
            self.count()
        return self._passed

    def find(self, ids: Iterable[str]) -> list[Item]:
        wanted = list(ids)
        if self._leave_out:
            return super().find(wanted)
        missing = set(wanted) - self.root.existing(set(filter(_is_image_path, wanted)))
        if any("\\" in id for id in missing):  # the escape of a name that is not UTF-8
            return super().find(wanted)
        self.refuse_missing(wanted, missing)
        return [self.root.image(id) for id in wanted]

    def _walk(self) -> Iterator[tuple[str, FileName]]:
        passed, first = PassedOver(), ""
        for id, file in walk(self.root, has_image_suffix, passed, self._left_out()):
            first = first or id
            if passed.containers:
                break
            yield id, file
        if first and passed.containers:
            other = passed.containers[0]
            folder, _, name = f"{self.uri}/{other}".rpartition("/")
            end = name[-len(suffix_of(name)) :]
            raise PoolError(
                f"{self.uri}: holds images (such as {first!r}) and shards or tables (such as "
                f"{other!r}), and a pool is of one kind; give '{folder}/*{end}', or move those "
                "files elsewhere"
            )
        self._passed = passed

    def _left_out(self) -> frozenset[tuple[int, int] | None]:
        """The identities of the folders to leave out that exist by now."""
        found = {folder.identity() for folder in self._leave_out}
        return frozenset(found - {None, self.root.identity()})


def _is_image_path(id: str) -> bool:
    """Whether an id is a path of a visible image below its folder, in its one spelling."""
    plain = "\0" not in id and not {"", ".", ".."} & set(id.split("/"))
    return plain and is_visible(id) and has_image_suffix(id)
