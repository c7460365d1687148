"""Files named by a text or CSV list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from lloss.errors import PoolError
from lloss.pools.fingerprints import content_fingerprint
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import StoragePath
from lloss.text.csv_table import Table, text_lines


class PathListPool(Pool):
    """The files named by a text file (a path a line) or by a CSV with a column ``path``.

    Paths are relative to the list's folder. The id is the path as written, or the column ``id``.
    The list is read again each time.
    """

    def __init__(self, listing: StoragePath, uri: str) -> None:
        self.listing = listing
        self.uri = uri
        self.remote = listing.remote

    def __iter__(self) -> Iterator[Item]:
        folder = self.listing.parent
        return (folder.image(path, id) for id, path in _rows(self.listing))

    def ids(self) -> Iterator[str]:
        return (id for id, _ in _rows(self.listing))

    def fingerprint(self) -> str:
        return content_fingerprint(self.listing)


def _rows(listing: StoragePath) -> Iterator[tuple[str, str]]:
    """Id and path of each row."""
    with listing.open() as file:
        rows = _csv_rows if listing.suffix == ".csv" else _text_rows
        for number, id, path in rows(file, str(listing)):
            if not id.strip() or not path.strip():
                raise PoolError(f"{listing}, line {number}: an empty id or path")
            yield id, path


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
