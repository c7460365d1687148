"""Files named by a text or CSV list."""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lloss.errors import PoolError
from lloss.pools.base import Item, Pool, read_file


class ListPool(Pool):
    """The files named by a text file (a path a line) or by a CSV with a column ``path``.

    Paths are relative to the list's folder. The id is the path as written, or the column ``id``.
    """

    def __init__(self, listing: Path) -> None:
        self.listing = listing
        self.uri = str(listing)
        self._paths = _csv_paths(listing) if listing.suffix == ".csv" else _text_paths(listing)

    def __iter__(self) -> Iterator[Item]:
        return (self._item(id) for id in self._paths)

    def _item(self, id: str) -> Item:
        path = self.listing.parent / self._paths[id]
        return Item(id, functools.partial(read_file, path))

    def count(self) -> int:
        """The list's length."""
        return len(self._paths)

    def find(self, ids: Iterable[str]) -> list[Item]:
        """See :meth:`Pool.find`; here by look-up."""
        wanted = list(ids)
        unknown = [id for id in wanted if id not in self._paths]
        if unknown:
            self._refuse(unknown[0], len(unknown))
        return [self._item(id) for id in wanted]


def _text_paths(listing: Path) -> dict[str, str]:
    paths: dict[str, str] = {}
    with _readable(listing), _text_of(listing) as file:
        numbers = itertools.count(1)
        rows = ((number, line.rstrip("\r\n")) for number, line in zip(numbers, file))
        _collect(paths, ((n, line, line) for n, line in rows if line), listing)
    return paths


def _csv_paths(listing: Path) -> dict[str, str]:
    paths: dict[str, str] = {}
    with _readable(listing), _text_of(listing) as file:
        table = csv.DictReader(file)
        if "path" not in (table.fieldnames or ()):
            named = ", ".join(table.fieldnames or ()) or "none"
            raise PoolError(f"{listing}: a list of images needs a column 'path' (it has: {named})")
        key = "id" if "id" in (table.fieldnames or ()) else "path"
        rows = ((table.line_num, row[key] or "", row["path"] or "") for row in table)
        _collect(paths, rows, listing)
    return paths


@contextlib.contextmanager
def _readable(listing: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise PoolError(f"{listing}: not UTF-8 text: {error.reason}") from error
    except csv.Error as error:
        raise PoolError(f"{listing}: cannot be read as CSV: {error}") from error


def _text_of(listing: Path) -> Any:
    try:
        return listing.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise PoolError(f"{listing}: cannot be read: {error.strerror}") from error


def _collect(paths: dict[str, str], rows: Iterable[tuple[int, str, str]], listing: Path) -> None:
    lines: dict[str, int] = {}
    for number, id, path in rows:
        if not id or not path:
            raise PoolError(f"{listing}, line {number}: an empty id or path")
        if id in lines:
            raise PoolError(
                f"{listing}: the id {id!r} stands in line {lines[id]} and in line {number}; "
                "ids are unique in a pool"
            )
        lines[id] = number
        paths[id] = path
