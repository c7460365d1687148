"""Parquet and Arrow files as batches of rows, in bounded memory."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lloss.errors import PoolError
from lloss.pools.storage import LocalPath, StoragePath

_BATCH_BYTES = 16 << 20
"""What a batch of rows may hold of images; a writer's row group may hold a gigabyte."""
_BATCH_ROWS = 4096
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


class TableFile(ABC):
    """A file of rows, in blocks (row groups or record batches) that a reader can start at.

    Attributes:
        starts: the row that each block begins with, and the number of rows last.
    """

    schema: Any
    starts: list[int]

    def __init__(self, path: StoragePath) -> None:
        self.path = path

    @property
    def count(self) -> int:
        """How many rows; no image is read for it."""
        return self.starts[-1]

    def block(self, row: int) -> int:
        """The number of the block that holds a row."""
        return min(bisect.bisect_right(self.starts, row), len(self.starts) - 1) - 1

    @abstractmethod
    def batches(self, columns: Sequence[str], block: int = 0) -> Iterator[tuple[int, Any]]:
        """Record batches of these columns from a block on, each with its first row."""


def open_table(path: StoragePath) -> TableFile:
    """Open a Parquet file, an Arrow (Feather) file, or an Arrow stream, whatever its suffix says.

    Raises:
        PoolError: it is none of them, or damaged.
    """
    with path.open() as file:
        begin = file.read(6)
    if begin.startswith(b"FEA1"):
        raise PoolError(f"{path}: is of Feather's version 1; write it with version 2, or Parquet")
    if begin.startswith(b"PAR1") or (path.suffix == ".parquet" and begin != b"ARROW1"):
        return _Parquet(path)
    return _Arrow(path, stream=begin != b"ARROW1")


@contextlib.contextmanager
def table_errors(path: StoragePath) -> Iterator[None]:
    """Turn what pyarrow raises into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PoolError(f"{path}: not a readable {path.suffix[1:]} file: {reason}") from error


class _Parquet(TableFile):
    def __init__(self, path: StoragePath) -> None:
        super().__init__(path)
        with self._opened() as file:
            self.schema = file.schema_arrow
            groups = (file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))
            self.starts = list(itertools.accumulate(groups, initial=0))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        # Without pre-buffering a column is read piece by piece, not a whole row group at once.
        buffer = (8 if self.path.remote else 1) << 20
        with _source(self.path) as file:
            yield pq.ParquetFile(file, buffer_size=buffer, pre_buffer=False)

    def batches(self, columns: Sequence[str], block: int = 0) -> Iterator[tuple[int, Any]]:
        groups = list(range(block, len(self.starts) - 1))
        row = self.starts[block]
        if not groups:
            return
        with self._opened() as file:
            rows = _rows_a_batch(file.metadata, columns)
            for batch in file.iter_batches(rows, groups, list(columns), use_threads=False):
                yield row, batch
                row += len(batch)


def _rows_a_batch(metadata: Any, columns: Sequence[str]) -> int:
    """So many that a batch of these columns is of bounded size in any of the row groups."""
    most = 1
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = (group.column(column) for column in range(group.num_columns))
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema.partition(".")[0] in columns or chunk.path_in_schema in columns
        )
        most = max(most, size // max(group.num_rows, 1))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // most))


class _Arrow(TableFile):
    """Record batches: with a footer, as Feather has, or a stream, as Hugging Face writes."""

    def __init__(self, path: StoragePath, stream: bool) -> None:
        super().__init__(path)
        self._stream = stream
        with table_errors(path), path.open() as file:
            if stream:
                file.seek(max(file.seek(0, os.SEEK_END) - len(_STREAM_END), 0))
                if file.read() != _STREAM_END:
                    raise ValueError("it does not end as an Arrow stream does; was it cut off?")
        with _source(path) as source:
            self.schema = (pa.ipc.open_stream if stream else pa.ipc.open_file)(source).schema

    @functools.cached_property
    def starts(self) -> list[int]:  # type: ignore[override]
        small = [field.name for field in self.schema if pa.types.is_primitive(field.type)]
        with _source(self.path, pa.memory_map) as source:  # reads only what is looked at
            batches = self._batches(source, (small or self.schema.names)[:1], 0)
            return list(itertools.accumulate((batch.num_rows for batch in batches), initial=0))

    def _batches(self, source: Any, columns: Sequence[str], first: int) -> Iterator[Any]:
        fields = [self.schema.get_field_index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        if self._stream:
            return itertools.islice(pa.ipc.open_stream(source, options=options), first, None)
        file = pa.ipc.open_file(source, options=options)
        return map(file.get_batch, range(first, file.num_record_batches))

    def batches(self, columns: Sequence[str], block: int = 0) -> Iterator[tuple[int, Any]]:
        with _source(self.path) as source:
            row = self.starts[block]
            for batch in self._batches(source, columns, block):
                yield row, batch.select(list(columns))
                row += batch.num_rows


@contextlib.contextmanager
def _source(path: StoragePath, opener: Callable[[str], Any] = pa.OSFile) -> Iterator[Any]:
    """The file for pyarrow; a local one is read past Python and its lock."""
    with table_errors(path), path.open() as file:
        if isinstance(path, LocalPath):
            with opener(path.path_of(file)) as source:
                yield source
        else:
            yield file
