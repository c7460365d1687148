from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.errors import ScoresError
from lloss.scores.part_file import write_part
from lloss.scores.scores_folder import ScoresFolder, scores_table


def _table(count: int) -> pa.Table:
    random = np.random.default_rng(0)
    ids = [f"folder/{n:06d}.jpg" for n in range(count)]
    loss = random.random(count).astype(np.float32)
    loss[::7] = np.nan
    vectors = random.normal(size=(count, 3)).astype(np.float32)
    return scores_table(ids, {"loss": loss, "embedding": vectors})


def test_a_part_holds_what_was_written(tmp_path: Path) -> None:
    table = _table(40_000)
    write_part(table, tmp_path / "a.parquet")
    back = pq.read_table(tmp_path / "a.parquet")
    assert back.schema.equals(table.schema)
    for name in ("id", "embedding"):
        assert back[name].combine_chunks().equals(table[name].combine_chunks())
    assert back["loss"].to_numpy().tobytes() == table["loss"].to_numpy().tobytes()


def _scan(path: Path, *columns: str) -> pa.Table:
    """Read a file that stands in a scores folder as its only part."""
    path.rename(path.with_name("part-00000.parquet"))
    return pa.Table.from_batches(ScoresFolder(path.parent).scan(columns or ("id", "loss")))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_bit_that_turned_over_is_found(tmp_path: Path, column: int) -> None:
    path = tmp_path / "a.parquet"
    write_part(_table(1000), path)
    chunk = pq.read_metadata(path).row_group(0).column(column)
    whole = bytearray(path.read_bytes())
    whole[chunk.data_page_offset + chunk.total_compressed_size - 9] ^= 4
    path.write_bytes(whole)
    name = ("id", "loss", "embedding")[column]
    with pytest.raises(ScoresError, match=r"cannot be read: .*CRC"):
        _scan(path, name)
