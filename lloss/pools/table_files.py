"""Parquet and Arrow files as batches of rows, in bounded memory."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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
    """One file of rows."""

    def __init__(self, place: StoragePath) -> None:
        self.place = place

    @property
    @abstractmethod
    def schema(self) -> Any:
        """Its ``pyarrow.Schema``."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many rows; no image is read for it."""

    @abstractmethod
    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[int, Any]]:
        """Record batches of these columns from about row ``start`` on, each with its first row.

        The first batch may begin before ``start``, never after it.
        """

    def block(self, row: int) -> int:
        """The first row of the part of the file that can be jumped to for the sake of ``row``."""
        return 0


def open_table(place: StoragePath) -> TableFile:
    """Open a Parquet file, an Arrow (Feather) file, or an Arrow stream, whatever its suffix says.

    Raises:
        PoolError: it is none of them, or damaged.
    """
    with place.open() as file:
        begin = file.read(6)
    if begin.startswith(b"FEA1"):
        raise PoolError(f"{place}: is of Feather's version 1; write it with version 2, or Parquet")
    if begin == b"ARROW1":
        return _ArrowFile(place)
    of_parquet = begin.startswith(b"PAR1") or place.suffix == ".parquet"
    return _Parquet(place) if of_parquet else _ArrowStream(place)


@contextlib.contextmanager
def readable(place: StoragePath) -> Iterator[None]:
    """Turn what pyarrow raises into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PoolError(f"{place}: not a readable {place.suffix[1:]} file: {reason}") from error


class _Parquet(TableFile):
    @functools.cached_property
    def _starts(self) -> list[int]:
        with self._opened() as file:
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        starts = [0]
        for rows in groups:
            starts.append(starts[-1] + rows)
        return starts

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        # Without pre-buffering a column is read piece by piece, not a whole row group at once.
        buffer = (8 if self.place.remote else 1) << 20
        with _source(self.place) as file:
            yield pq.ParquetFile(file, buffer_size=buffer, pre_buffer=False)

    @functools.cached_property
    def schema(self) -> Any:
        with self._opened() as file:
            return file.schema_arrow

    @functools.cached_property
    def count(self) -> int:
        return self._starts[-1]

    def block(self, row: int) -> int:
        return max(start for start in self._starts if start <= row)

    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[int, Any]]:
        first = self._starts.index(self.block(start))
        groups = list(range(first, len(self._starts) - 1))
        row = self._starts[first]
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
        chunks = [group.column(column) for column in range(group.num_columns)]
        size = sum(c.total_uncompressed_size for c in chunks if _is_of(c.path_in_schema, columns))
        most = max(most, size // max(group.num_rows, 1))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // most))


def _is_of(path: str, columns: Sequence[str]) -> bool:
    return any(path == column or path.startswith(f"{column}.") for column in columns)


class _ArrowFile(TableFile):
    """The format with a footer, which Feather is too: batches can be picked."""

    @contextlib.contextmanager
    def _opened(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        options = pa.ipc.IpcReadOptions() if columns is None else _only(self.schema, columns)
        with _source(self.place) as file:
            yield pa.ipc.open_file(file, options=options)

    @functools.cached_property
    def schema(self) -> Any:
        with self._opened() as file:
            return file.schema

    @functools.cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        with mapped(self.place) as source:
            file = pa.ipc.open_file(source, options=_cheapest(self.schema))
            for number in range(file.num_record_batches):
                starts.append(starts[-1] + file.get_batch(number).num_rows)
        return starts

    @functools.cached_property
    def count(self) -> int:
        return self._starts[-1]

    def block(self, row: int) -> int:
        return max(start for start in self._starts if start <= row)

    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[int, Any]]:
        first = self._starts.index(self.block(start))
        with self._opened(columns) as file:
            for number in range(first, file.num_record_batches):
                yield self._starts[number], file.get_batch(number).select(list(columns))


class _ArrowStream(TableFile):
    """The format without a footer, which Hugging Face writes: it is read from its begin."""

    def __init__(self, place: StoragePath) -> None:
        super().__init__(place)
        with readable(place), place.open() as file:
            file.seek(max(place.size() - len(_STREAM_END), 0))
            if file.read() != _STREAM_END:
                raise ValueError("it does not end as an Arrow stream does; was it cut off?")

    @functools.cached_property
    def schema(self) -> Any:
        with _source(self.place) as file:
            return pa.ipc.open_stream(file).schema

    @functools.cached_property
    def count(self) -> int:
        with mapped(self.place) as source:
            batches = pa.ipc.open_stream(source, options=_cheapest(self.schema))
            return sum(batch.num_rows for batch in batches)

    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[int, Any]]:
        row, options = 0, _only(self.schema, columns)
        with _source(self.place) as file:
            for batch in pa.ipc.open_stream(file, options=options):
                if row + batch.num_rows > start:
                    yield row, batch.select(list(columns))
                row += batch.num_rows


def _only(schema: Any, columns: Sequence[str]) -> Any:
    fields = [schema.get_field_index(column) for column in columns]
    return pa.ipc.IpcReadOptions(included_fields=fields)


def _cheapest(schema: Any) -> Any:
    """Options that leave out the columns of images, for a look at the batches' lengths."""
    small = [field.name for field in schema if pa.types.is_primitive(field.type)]
    return _only(schema, (small or schema.names)[:1])


@contextlib.contextmanager
def _source(place: StoragePath) -> Iterator[Any]:
    with readable(place), place.open() as file:
        if isinstance(place, LocalPath):  # past Python and its lock
            with pa.OSFile(place.path_of(file)) as source:
                yield source
        else:
            yield file


@contextlib.contextmanager
def mapped(place: StoragePath) -> Iterator[Any]:
    """The file for pyarrow; a local one mapped, so that only what is looked at is read."""
    with _source(place) as file:
        if isinstance(place, LocalPath):
            with pa.memory_map(place.path_of(file)) as source:
                yield source
        else:
            yield file
