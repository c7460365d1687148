"""Files named by a text or CSV list."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import IO

from lloss.errors import PoolError
from lloss.pools.duplicate_ids import first_duplicate
from lloss.pools.fingerprints import content_fingerprint
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import StoragePath
from lloss.text.csv_table import Table, text_lines


class PathListPool(Pool):
    """The files named by a text file (a path a line) or by a CSV with a column ``path``.

    Paths are relative to the list's folder. The id is the path as written, or the column ``id``.
    The list is read again each time; opening it takes 8 bytes a row, to find duplicate ids.
    """

    unique = True

    def __init__(self, listing: StoragePath, uri: str) -> None:
        self.listing = listing
        self.uri = uri
        self.remote = listing.remote
        self._count = 0
        duplicate = first_duplicate(self._counted_ids)
        if duplicate is not None:
            id, *positions = duplicate
            one, two = (next(itertools.islice(_rows(listing), n, None))[0] for n in positions)
            raise PoolError(
                f"{listing}: the id {id!r} is in line {one} and in line {two}; "
                "ids are unique in a pool"
            )

    def _counted_ids(self) -> Iterator[str]:
        for count, (_, id, _) in enumerate(_rows(self.listing), 1):
            self._count = count
            yield id

    def __iter__(self) -> Iterator[Item]:
        folder = self.listing.parent
        return (folder.image(path, id) for _, id, path in _rows(self.listing))

    def ids(self) -> Iterator[str]:
        return (id for _, id, _ in _rows(self.listing))

    def count(self) -> int:
        return self._count

    def fingerprint(self) -> str:
        return content_fingerprint(self.listing)


def _rows(listing: StoragePath) -> Iterator[tuple[int, str, str]]:
    """Line, id and path of each row."""
    with listing.open() as file:
        rows = _csv_rows if listing.suffix == ".csv" else _text_rows
        for number, id, path in rows(file, str(listing)):
            if not id.strip() or not path.strip():
                raise PoolError(f"{listing}, line {number}: an empty id or path")
            yield number, id, path


def _text_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, str, str]]:
    lines = ((number, line) for number, line in text_lines(file, name, PoolError) if line.strip())
    for position, (number, line) in enumerate(lines):
        if position == 0 and "path" in re.split(r"[,;\t]", line.casefold().replace(" ", "")):
            raise PoolError(
                f"{name}, line {number}: {line!r} looks like the header of a CSV; rename the file "
                "to .csv, or remove that line"
            )
        yield number, line, line


def _csv_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, str, str]]:
    table = Table(file, name, PoolError)
    (path,) = table.needed("path")
    column = table.column("id")
    id = path if column is None else column
    return ((number, row[id], row[path]) for number, row in table)
