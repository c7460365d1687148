"""Rows of Parquet and Arrow files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from lloss.errors import PoolError
from lloss.pools.fingerprints import file_prints
from lloss.pools.pool import Chunk, Item, Pool
from lloss.pools.storage import StoragePath
from lloss.pools.table_columns import Columns, ImageCell
from lloss.pools.table_files import TableFile, open_table


class TablePool(Pool):
    """The rows of Parquet, Arrow and Feather files, one file after another.

    The id is the column ``id`` (or ``image_id``, ``key``, ``__key__``), else the path, else the
    row's number in the pool; integers become their decimal text. The image is the one column of
    bytes, or of Hugging Face's structs of bytes and path, or of paths relative to the file's
    folder. Rows are read in batches of bounded size; of ids that column alone.

    Args:
        files: of one schema, in the order of the pool.
        uri: what to call the pool.
        options: ``id`` and ``image`` name columns.

    Raises:
        PoolError: a file is damaged, or there is no one column for ids or images.
    """

    def __init__(self, files: Sequence[StoragePath], uri: str, options: dict[str, str]) -> None:
        self.uri = uri
        self.remote = any(file.remote for file in files)
        self.counted = not self.remote
        self.places = files
        self._opened: dict[int, TableFile] = {}
        self.columns = Columns.chosen(self._file(0).schema, options, uri)
        self.unique = not self.columns.id

    def _file(self, number: int) -> TableFile:
        if number not in self._opened:
            file = open_table(self.places[number])
            columns = getattr(self, "columns", None)
            missing = [c for c in columns.read if c not in file.schema.names] if columns else []
            if missing:
                raise PoolError(
                    f"{file.place}: has no column {missing[0]!r}, which {self.places[0]} has"
                )
            self._opened[number] = file
        return self._opened[number]

    def _files(self, start: int = 0) -> Iterator[tuple[int, TableFile]]:
        """From the file on that holds row ``start``, each with the pool's position of its begin."""
        position = 0
        for number in range(len(self.places)):
            file = self._file(number)
            if position + file.count > start:
                yield position, file
            position += file.count

    def __iter__(self) -> Iterator[Item]:
        return self._from(0)

    def _from(self, start: int) -> Iterator[Item]:
        """The items from this position on."""
        for offset, file in self._files(start):
            inside = max(start - offset, 0)
            for first, batch in file.batches(self.columns.read, inside):
                skipped = max(inside - first, 0)
                yield from self.columns.items(
                    batch.slice(skipped), first + skipped, file.place, offset
                )

    def ids(self) -> Iterator[str]:
        """The ids; the images are not read."""
        if not self.columns.id:
            yield from map(str, range(self.count()))
            return
        for offset, file in self._files():
            for first, batch in file.batches([self.columns.id], 0):
                yield from self.columns.ids(batch, first, file.place, offset)

    def count(self) -> int:
        """The files' rows, of which they tell themselves."""
        return sum(self._file(number).count for number in range(len(self.places)))

    def fingerprint(self) -> str:
        """By the files' names, sizes and a little of their content; not by that of named images."""
        return file_prints(self.places)

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`. The items carry their bytes: a batch each would be far more."""
        wanted = list(ids)
        missing = set(wanted)
        places = {id: row for row, id in enumerate(self.ids()) if id in missing}
        self.refuse_missing(wanted, missing - places.keys())
        rows = sorted(places.values())
        chunks = self.chunks(range(row, row + 1) for row in rows)
        found = {item.id: _apart(item) for chunk in chunks for item in chunk.items}
        return [found[id] for id in wanted]

    def _block(self, row: int) -> int:
        """The position of the last place before this row that can be jumped to."""
        found = next(self._files(row), None)
        return found[0] + found[1].block(row - found[0]) if found else row

    def chunks(self, ranges: Iterable[range]) -> Iterator[Chunk]:
        """See :meth:`Pool.chunks`; here files and row groups without a position are left out."""
        items, position = self._from(0), 0
        for wanted in ranges:
            if wanted.start > position and self._block(wanted.start) > position:
                items, position = self._from(wanted.start), wanted.start
            skipped = wanted.start - position
            chunk = list(itertools.islice(items, skipped, skipped + len(wanted)))
            if not chunk:
                return
            position = wanted.stop
            yield Chunk(wanted.start, chunk)


def _apart(item: Item) -> Item:
    cell = item.read
    return Item(item.id, cell.carried()) if isinstance(cell, ImageCell) else item
