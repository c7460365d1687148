"""Files named by a text or CSV list."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
from collections.abc import Iterator

from lloss.duplicates import first_duplicate
from lloss.errors import PoolError
from lloss.pools.base import Item, Pool
from lloss.pools.places import Place
from lloss.pools.prints import content_print


class ListPool(Pool):
    """The files named by a text file (a path a line) or by a CSV with a column ``path``.

    Paths are relative to the list's folder. The id is the path as written, or the column ``id``.
    The list is read again each time; what stays in memory while it is opened is 8 bytes a row,
    to find doubled ids.
    """

    unique = True

    def __init__(self, listing: Place, uri: str) -> None:
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


def _rows(listing: Place) -> Iterator[tuple[int, str, str]]:
    """Line, id and path of each row."""
    with _text_of(listing) as file:
        rows = _csv_rows(file, listing) if listing.suffix == ".csv" else _text_rows(file)
        for number, id, path in rows:
            if not id or not path:
                raise PoolError(f"{listing}, line {number}: an empty id or path")
            yield number, id, path


def _text_rows(file: io.TextIOWrapper) -> Iterator[tuple[int, str, str]]:
    lines = ((number, line.rstrip("\r\n")) for number, line in zip(itertools.count(1), file))
    return ((number, line, line) for number, line in lines if line)


def _csv_rows(file: io.TextIOWrapper, listing: Place) -> Iterator[tuple[int, str, str]]:
    table = csv.reader(file)
    header = next(table, [])
    if "path" not in header:
        named = ", ".join(header) or "none"
        raise PoolError(f"{listing}: a list of images needs a column 'path' (it has: {named})")
    path = header.index("path")
    id = header.index("id") if "id" in header else path
    for row in table:
        if row:
            row += [""] * (len(header) - len(row))
            yield table.line_num, row[id], row[path]


@contextlib.contextmanager
def _text_of(listing: Place) -> Iterator[io.TextIOWrapper]:
    with listing.open() as file:
        try:
            yield io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError as error:
            raise PoolError(f"{listing}: not UTF-8 text: {error.reason}") from error
        except csv.Error as error:
            raise PoolError(f"{listing}: cannot be read as CSV: {error}") from error
        except OSError as error:
            raise PoolError(f"{listing}: cannot be read: {error.strerror or error}") from error


def _checked(listing: Place) -> int:
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
