"""Rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lloss.errors import PoolError
from lloss.pools.fingerprints import files_fingerprint
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import StoragePath
from lloss.pools.table_columns import Columns, ImageCell
from lloss.pools.table_files import TableFile, open_table


class TablePool(Pool):
    """The rows of Parquet files and Arrow streams, one file after another.

    The id is the column ``id`` (or ``image_id``, ``key``, ``__key__``), else the path, else the
    row's number in the pool; integers become their decimal text. The image is the one column of
    bytes, or of Hugging Face's structs of bytes and path, or of paths relative to the file's
    folder. The ``options`` ``id`` and ``image`` name columns; without them PoolError where the
    schema is ambiguous.
    """

    def __init__(self, files: Sequence[StoragePath], uri: str, options: dict[str, str]) -> None:
        self.uri = uri
        self.remote = any(file.remote for file in files)
        self.files = files
        first = open_table(files[0])
        self._opened: dict[int, TableFile] = {0: first}
        self.columns = Columns.chosen(first.schema, options, uri)
        self.unique = not self.columns.id

    def _file(self, number: int) -> TableFile:
        if number not in self._opened:
            file = open_table(self.files[number])
            missing = [name for name in self.columns.read if name not in file.schema.names]
            if missing:
                raise PoolError(
                    f"{file.path}: has no column {missing[0]!r}, which {self.files[0]} has"
                )
            self._opened[number] = file
        return self._opened[number]

    def _located(self, start: int = 0) -> Iterator[tuple[int, TableFile]]:
        """Files from the one with row ``start`` on, with the position of their first row."""
        position = 0
        for number in range(len(self.files)):
            file = self._file(number)
            if position + file.count > start:
                yield position, file
            position += file.count

    def __iter__(self) -> Iterator[Item]:
        return self._from(0)

    def _from(self, start: int) -> Iterator[Item]:
        """The items from this position on."""
        for offset, file in self._located(start):
            inside = max(start - offset, 0)
            for first, batch in file.batches(self.columns.read, file.block(inside)):
                skipped = max(inside - first, 0)
                yield from self.columns.items(
                    batch.slice(skipped), first + skipped, file.path, offset
                )

    def ids(self) -> Iterator[str]:
        if not self.columns.id:
            yield from map(str, range(self.count()))
            return
        for offset, file in self._located():
            for first, batch in file.batches([self.columns.id]):
                yield from self.columns.ids(batch, first, file.path, offset)

    def count(self) -> int:
        return sum(self._file(number).count for number in range(len(self.files)))

    def fingerprint(self) -> str:
        return files_fingerprint(self.files)

    def find(self, ids: Iterable[str]) -> list[Item]:
        # The items carry their bytes: keeping a whole batch for each would need far more memory.
        wanted = list(ids)
        missing = set(wanted)
        places = {id: row for row, id in enumerate(self.ids()) if id in missing}
        self.refuse_missing(wanted, missing - places.keys())
        found = {}
        for chunk in self.chunks(range(row, row + 1) for row in sorted(places.values())):
            for item in chunk.items:
                assert isinstance(item.read, ImageCell)
                found[item.id] = Item(item.id, item.read.detached())
        return [found[id] for id in wanted]

    def _skip_to(
        self, start: int, items: Iterator[Item], position: int
    ) -> tuple[Iterator[Item], int]:
        """Jump where a block begins between the two positions."""
        offset, file = next(self._located(start), (start, None))
        begin = offset if file is None else offset + file.starts[file.block(start - offset)]
        return (self._from(start), start) if begin > position else (items, position)
