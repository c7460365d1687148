"""A part of the scores: a Parquet file, how it is written and read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lloss.errors import ScoresError

_ROW_GROUP = 16_384
"""Rows that a reader must take at once: 32 MB of embeddings of 512 numbers."""


def write_part(table: pa.Table, path: Path) -> None:
    """Write a table of scores, so that both this and reading single columns are fast.

    In parts of 10,000 rows: no dictionaries, since neither ids nor numbers repeat (they take a
    third of the time in which ids are read). Columns of one number a row are not compressed (it
    saves 7 % of their bytes and takes a third of their reading). Ids share most of their letters,
    and embeddings shrink by a tenth, by half where they are rectified. Splitting the bytes of
    embeddings saves another tenth, but not every reader knows it. Their statistics help none.

    Pages bear a checksum, a bit that a disk turned over in a score would show nowhere else.
    """
    compressed = {"id", "embedding"}
    paths = {name: _leaf(table.schema.field(name)) for name in table.schema.names}
    pq.write_table(
        table,
        path,
        row_group_size=_ROW_GROUP,
        use_dictionary=False,
        compression={paths[name]: "zstd" if name in compressed else "none" for name in paths},
        write_statistics=[paths[name] for name in paths if paths[name] == name],
        write_page_checksum=True,
    )


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_fixed_size_list(field.type) else field.name


@contextmanager
def opened_part(path: Path) -> Iterator[pq.ParquetFile]:
    """A part, open.

    Raises:
        ScoresError: it is damaged.
    """
    with readable(path):
        # Opened here, it saves pyarrow's search for the file system: a tenth of a part's reading.
        source = pa.OSFile(str(path), "rb")
    with source:
        with readable(path):
            file = pq.ParquetFile(source, page_checksum_verification=True)
        yield file


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Where a failure to read this part becomes a :class:`ScoresError`."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:  # such as no UTF-8
        raise ScoresError(f"{path}: cannot be read: {error}") from error


def check_columns(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    """Raises: ScoresError: a part has not all of these columns."""
    has = file.schema_arrow.names
    missing = [name for name in columns if name not in has]
    if missing:
        raise ScoresError(f"{path}: has no column {missing[0]!r} (it has {', '.join(has)})")
