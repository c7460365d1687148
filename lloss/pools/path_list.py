"""Files named by a text or CSV list."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import IO

from lloss.errors import PoolError
from lloss.pools.fingerprints import content_print
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import StoragePath
from lloss.pools.unique_ids import first_duplicate
from lloss.text.csv_table import Table, text_lines


class PathListPool(Pool):
    """The files named by a text file (a path a line) or by a CSV with a column ``path``.

    Paths are relative to the list's folder. The id is the path as written, or the column ``id``.
    The list is read again each time; what stays in memory while it is opened is 8 bytes a row,
    to find doubled ids.
    """

    unique = True

    def __init__(self, listing: StoragePath, uri: str) -> None:
        self.listing = listing
        self.uri = uri
        self.remote = listing.remote
        self._count = _checked(listing)

    def __iter__(self) -> Iterator[Item]:
        folder = self.listing.parent
        for _, id, path in _rows(self.listing):
            yield Item(id, functools.partial(folder.read_image, path), file=folder.file_of(path))

    def ids(self) -> Iterator[str]:
        """The paths as written, or the column ``id``."""
        return (id for _, id, _ in _rows(self.listing))

    def count(self) -> int:
        """The list's length when it was opened."""
        return self._count

    def fingerprint(self) -> str:
        """A digest of the list itself; not of the files it names."""
        return content_print(self.listing)


def _rows(listing: StoragePath) -> Iterator[tuple[int, str, str]]:
    """Line, id and path of each row."""
    try:
        with listing.open() as file:
            rows = _csv_rows if listing.suffix == ".csv" else _text_rows
            for number, id, path in rows(file, str(listing)):
                if not id.strip() or not path.strip():
                    raise PoolError(f"{listing}, line {number}: an empty id or path")
                yield number, id, path
    except OSError as error:
        raise PoolError(f"{listing}: cannot be read: {error.strerror or error}") from error


def _text_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, str, str]]:
    first = True
    for number, line in text_lines(file, name, PoolError):
        if not line.strip():
            continue
        if first and "path" in re.split(r"[,;\t]", line.casefold().replace(" ", "")):
            raise PoolError(
                f"{name}, line {number}: {line!r} looks like the header of a CSV; call the file "
                ".csv, or remove that line"
            )
        first = False
        yield number, line, line


def _csv_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, str, str]]:
    table = Table(file, name, PoolError)
    (path,) = table.needed("path")
    column = table.column("id")
    id = path if column is None else column
    return ((number, row[id], row[path]) for number, row in table)


def _checked(listing: StoragePath) -> int:
    """Read the list once, refuse doubled ids, and tell its length."""
    lines = [0, 0]
    count = 0

    def ids() -> Iterator[str]:
        nonlocal count
        for count, (_, id, _) in enumerate(_rows(listing), 1):  # noqa: B007
            yield id

    found = first_duplicate(ids)
    if found is not None:
        id, *positions = found
        for position, (number, _, _) in enumerate(_rows(listing)):
            if position in positions:
                lines[positions.index(position)] = number
        raise PoolError(
            f"{listing}: the id {id!r} stands in line {lines[0]} and in line {lines[1]}; "
            "ids are unique in a pool"
        )
    return count
