"""Data sets that Hugging Face ``datasets`` saved to disk, read without that package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.errors import PoolError
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import StoragePath
from lloss.pools.table import TablePool
from lloss.pools.table_columns import ImageCell
from lloss.pools.table_files import mapped

STATE, SPLITS = "state.json", "dataset_dict.json"


def open_saved(folder: StoragePath, uri: str, options: dict[str, str]) -> Pool | None:
    """The pool of a ``save_to_disk`` folder; None where the folder is no such one.

    Args:
        folder: a data set's, or that of a dict of them.
        uri: what to call the pool.
        options: ``split`` chooses of a dict; ``id`` and ``image`` name columns.

    Raises:
        PoolError: the folder is damaged, or the split is missing or unknown.
    """
    splits = _json(folder, SPLITS, "splits")
    if splits is not None:
        options = dict(options)
        split = options.pop("split", "")
        if split not in splits:
            found = f"has no split {split!r}" if split else "holds several data sets"
            raise PoolError(f"{uri}: {found}; choose with ?split= one of {', '.join(splits)}")
        return open_saved(folder.at(split), uri, options)
    files = _json(folder, STATE, "_data_files")
    if files is None:
        return None
    if "split" in options:
        raise PoolError(f"{uri}: is one data set without splits; leave ?split= out")
    if not files:
        raise PoolError(f"{uri}: the data set has no rows")
    pool = TablePool([folder.at(file["filename"]) for file in files], uri, options)
    order = _json(folder, STATE, "_indices_data_files")
    return PermutedPool(pool, _column(folder, order, "indices").to_numpy()) if order else pool


class PermutedPool(Pool):
    """The rows that a data set kept when it was filtered or shuffled, in its order.

    It was saved with its tables as they had been, and with the numbers of the rows that count.
    The tables are mapped where they can be, since they are read back and forth. Without a column
    of ids, the id is the row's number in the data set, not in the table.
    """

    def __init__(self, pool: TablePool, rows: NDArray[np.uint64]) -> None:
        self.uri, self.remote, self.unique = pool.uri, pool.remote, pool.unique
        self._tables = pool.fingerprint  # asked when it is needed: it opens every file
        self._rows, self._folder = rows, pool.places[0].parent
        columns = pool.columns
        names = [{"filename": place.name} for place in pool.places]
        self._images = _column(self._folder, names, columns.image)
        self._ids: Any = _column(self._folder, names, columns.id) if columns.id else None
        if columns.id != columns.image and self._ids is not None and self._ids.null_count:
            raise PoolError(f"{self.uri}: {self._ids.null_count} ids are null")
        if len(rows) and rows.max() >= len(self._images):
            raise PoolError(f"{self.uri}: its indices name row {rows.max()} of {len(self._images)}")

    def __iter__(self) -> Iterator[Item]:
        for id, row in zip(self.ids(), self._rows):
            yield Item(id, ImageCell(self._images, int(row), self._folder))

    def ids(self) -> Iterator[str]:
        """The column of ids, or numbers."""
        if self._ids is None:
            return map(str, range(self.count()))
        return (self._id(position, int(row)) for position, row in enumerate(self._rows))

    def _id(self, position: int, row: int) -> str:
        try:
            id = self._ids[row].as_py()
        except UnicodeDecodeError:
            raise PoolError(f"{self.uri}: the id in row {row} (from 0) is no UTF-8") from None
        return f"row {position}" if id is None else str(id)

    def count(self) -> int:
        """How many rows are kept."""
        return len(self._rows)

    def fingerprint(self) -> str:
        """That of the tables, and which rows are kept in which order."""
        digest = hashlib.sha256(self._tables().encode())
        digest.update(np.ascontiguousarray(self._rows).data)
        return digest.hexdigest()


def _column(folder: StoragePath, files: Iterable[dict[str, str]], name: str) -> Any:
    """A column of Arrow streams, one after another, as a ``pyarrow.ChunkedArray``."""
    chunks, kind = [], None
    for place in (folder.at(file["filename"]) for file in files):
        with mapped(place) as source:
            batches = pa.ipc.open_stream(source)
            kind = batches.schema.field(name).type
            chunks += [batch.column(name) for batch in batches]
    return pa.chunked_array(chunks, kind)  # of a filter that kept nothing there are no batches


def _json(folder: StoragePath, name: str, key: str) -> Any:
    """A key of a JSON file of this folder; None where there is no such file or key."""
    place = folder.at(name)
    if place.kind() != "file":
        return None
    with place.open() as file:
        try:
            content = json.loads(file.read())
        except ValueError as error:
            raise PoolError(f"{place}: not readable as JSON: {error}") from error
    return content.get(key) if isinstance(content, dict) else None
