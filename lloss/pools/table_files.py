"""Parquet files and Arrow streams as batches of rows, in bounded memory."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lloss.errors import PoolError
from lloss.pools.storage import LocalPath, StoragePath
from lloss.pools.uri import without_secrets

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
    """Open a table by its suffix; PoolError where it is damaged."""
    return _Parquet(path) if path.suffix == ".parquet" else _ArrowStream(path)


@contextlib.contextmanager
def _table_errors(path: StoragePath) -> Iterator[None]:
    """Turn what pyarrow raises into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        reason = without_secrets(" ".join(str(error).split()))
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
        with self.path.open() as file, _table_errors(self.path):
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
    """Rows per batch that keep a batch of these columns small in every row group."""
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


class _ArrowStream(TableFile):
    """What Hugging Face ``datasets`` writes."""

    def __init__(self, path: StoragePath) -> None:
        super().__init__(path)
        if not isinstance(path, LocalPath):
            raise PoolError(
                f"{path}: an Arrow file is only read on this machine; copy it here, or save it as "
                "Parquet"
            )
        with path.open() as file, _table_errors(path):
            file.seek(max(file.seek(0, os.SEEK_END) - len(_STREAM_END), 0))
            if file.read() != _STREAM_END:
                raise ValueError("it does not end as an Arrow stream does; save it as Parquet")
            same = f"/proc/self/fd/{file.fileno()}"  # a path may lead elsewhere by now
            # Mapped, since it has to find its blocks; to read images so would risk a bus error.
            with pa.memory_map(same if os.path.exists(same) else str(path)) as mapped:  # noqa: PTH110
                stream = pa.ipc.open_stream(mapped)
                self.schema = stream.schema
                self.starts = list(itertools.accumulate(map(len, stream), initial=0))

    def batches(self, columns: Sequence[str], block: int = 0) -> Iterator[tuple[int, Any]]:
        fields = [self.schema.get_field_index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        with self.path.open() as file, _table_errors(self.path):
            stream = pa.ipc.open_stream(file, options=options)
            blocks = itertools.islice(stream, block, None)
            for row, batch in zip(self.starts[block:-1], blocks, strict=True):
                yield row, batch.select(list(columns))
