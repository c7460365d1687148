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

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def open_saved(folder: StoragePath, uri: str, options: dict[str, str]) -> Pool | None:
    """Open a ``save_to_disk`` folder; None where the folder is not one.

    Args:
        folder: of a data set, or of a dict of them.
        uri: of the pool, for messages.
        options: ``split`` chooses of a dict; ``id`` and ``image`` name columns.

    Raises:
        PoolError: the folder is damaged, or the split is missing or unknown.
    """
    splits = _json(folder, _SPLITS).get("splits")
    if splits is not None:
        options = dict(options)
        split = options.pop("split", "")
        if split not in splits:
            found = f"has no split {split!r}" if split else "holds several data sets"
            raise PoolError(f"{uri}: {found}; choose with ?split= one of {', '.join(splits)}")
        return open_saved(folder.at(split), uri, options)
    state = _json(folder, _STATE)
    files = state.get("_data_files")
    if files is None:
        return None
    if "split" in options:
        raise PoolError(f"{uri}: is one data set without splits; leave ?split= out")
    if not files:
        raise PoolError(f"{uri}: the data set has no rows")
    pool = TablePool(_paths(folder, files), uri, options)
    order = state.get("_indices_data_files")
    return PermutedPool(pool, _column(_paths(folder, order), "indices")) if order else pool


class PermutedPool(Pool):
    """The rows that a data set kept when it was filtered or shuffled, in its order.

    It was saved with its tables as they had been, and with the numbers of the rows that count.
    Local tables are mapped, since they are read back and forth. Without a column of ids, the id is
    the row's number in the data set, not in the table.
    """

    def __init__(self, pool: TablePool, order: Any) -> None:
        self.uri, self.remote, self.unique = pool.uri, pool.remote, pool.unique
        self._table_fingerprint = pool.fingerprint  # computed when needed: it opens every file
        self._rows: NDArray[np.uint64] = order.to_numpy()
        self._folder = pool.files[0].parent
        columns = pool.columns
        self._images = _column(pool.files, columns.image)
        self._ids: Any = _column(pool.files, columns.id) if columns.id else None
        if columns.id != columns.image and self._ids is not None and self._ids.null_count:
            raise PoolError(f"{self.uri}: {self._ids.null_count} ids are null")
        if len(self._rows) and self._rows.max() >= len(self._images):
            raise PoolError(
                f"{self.uri}: its indices name row {self._rows.max()} of {len(self._images)}"
            )

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
            raise PoolError(f"{self.uri}: the id in row {row} (from 0) is not UTF-8") from None
        return f"row {position}" if id is None else str(id)

    def count(self) -> int:
        """How many rows are kept."""
        return len(self._rows)

    def fingerprint(self) -> str:
        """Digest the tables, and which rows are kept in which order."""
        digest = hashlib.sha256(self._table_fingerprint().encode())
        digest.update(np.ascontiguousarray(self._rows).data)
        return digest.hexdigest()


def _paths(folder: StoragePath, files: Iterable[dict[str, str]]) -> list[StoragePath]:
    return [folder.at(file["filename"]) for file in files]


def _column(files: Iterable[StoragePath], name: str) -> Any:
    """A column of Arrow streams, one after another, as a ``pyarrow.ChunkedArray``."""
    chunks, kind = [], None
    for path in files:
        with mapped(path) as source:
            batches = pa.ipc.open_stream(source)
            kind = batches.schema.field(name).type
            chunks += [batch.column(name) for batch in batches]
    return pa.chunked_array(chunks, kind)  # of a filter that kept nothing there are no batches


def _json(folder: StoragePath, name: str) -> dict[str, Any]:
    """A JSON file's object; empty where the folder has no such file."""
    path = folder.at(name)
    if path.kind() != "file":
        return {}
    with path.open() as file:
        try:
            content = json.loads(file.read())
        except ValueError as error:
            raise PoolError(f"{path}: not readable as JSON: {error}") from error
    return content if isinstance(content, dict) else {}
