"""A part of the scores: a Parquet file, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lloss.errors import ScoresError
from lloss.manifest import EMBEDDING, PRETRAINED_EMBEDDING

_ROW_GROUP = 16_384
"""Rows that a reader must take at once: 32 MB of embeddings of 512 numbers."""

_COMPRESSED = ("id", EMBEDDING, PRETRAINED_EMBEDDING)


def write_part(table: pa.Table, path: Path) -> None:
    """Write a table of scores so that both this and reading single columns are fast.

    No dictionaries: neither ids nor numbers repeat. Columns of one number a row hardly compress;
    ids and embeddings do. Pages have a checksum: a flipped bit in a score would show nowhere else.
    """
    vectors = [f.name for f in table.schema if pa.types.is_fixed_size_list(f.type)]
    scalars = [name for name in table.schema.names if name not in vectors]
    leaves = {name: name for name in scalars} | {name: f"{name}.list.element" for name in vectors}
    pq.write_table(
        table,
        path,
        row_group_size=_ROW_GROUP,
        use_dictionary=False,
        compression={
            leaf: "zstd" if name in _COMPRESSED else "none" for name, leaf in leaves.items()
        },
        write_statistics=scalars,
        write_page_checksum=True,
    )


def check_columns(folder: str, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Raise ScoresError where a schema has not all of these columns."""
    missing = [name for name in columns if name not in schema.names]
    if missing:
        has = ", ".join(schema.names)
        raise ScoresError(f"{folder}: has no column {missing[0]!r} (it has {has})")
