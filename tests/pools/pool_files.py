"""Write pools of every kind, from names and bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lloss.pools import open_pool


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_tar(path: Path, members: Mapping[str, bytes] | Iterable[str]) -> Path:
    """Compressed unless the suffix is ``.tar``; the content of a bare name is ``in NAME``."""
    if not isinstance(members, Mapping):
        members = {name: f"in {name}".encode() for name in members}
    mode: Any = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_table(path: Path, columns: Any, block: int = 5, **options: Any) -> Path:
    """Parquet, an Arrow stream (``.arrow``) or an Arrow file (``.feather``), by the suffix."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=block, **options)
        return path
    new = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
    with new(str(path), table.schema) as file:
        file.write_table(table, max_chunksize=block)
    return path


def random_images(count: int = 40, *shape: int, seed: int = 0) -> NDArray[np.uint8]:
    size = (count, *(shape or (5, 6, 3)))
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def ids_of(uri: object) -> list[str]:
    return [item.id for item in open_pool(str(uri))]
