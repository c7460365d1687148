"""The scores folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.errors import ScoresError
from lloss.scores.scores_folder import ScoresFolder, scores_table


def filled(path: Path, state: str = "complete") -> ScoresFolder:
    folder = ScoresFolder(path)
    for number in range(3):
        ids = [f"{number}-{row}" for row in range(4)]
        loss = np.arange(4, dtype=np.float32) + number
        embedding = np.full((4, 2), number, np.float32)
        table = scores_table(ids, {"loss": loss, "embedding": embedding})
        folder.write_part(number, table, [(f"{number}-bad", "it is broken")])
    folder.write_skipped()
    folder.write_run({"state": state})
    return folder


def test_columns_come_back_in_order_and_type(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    table = pa.Table.from_batches(folder.scan(["id", "loss", "embedding"]))
    assert table["id"].to_pylist()[:5] == ["0-0", "0-1", "0-2", "0-3", "1-0"]
    assert table.schema.field("loss").type == pa.float32()
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    assert np.array_equal(folder.column("loss"), [0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5])


def test_skipped_images_are_in_their_part_and_in_one_table(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    assert folder.part_ids(1)[1] == [("1-bad", "it is broken")]
    assert folder.skipped() == [(f"{n}-bad", "it is broken") for n in range(3)]
    assert pq.read_table(tmp_path / "skipped.parquet").column_names == ["id", "reason"]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    with pytest.raises(ScoresError, match=r"part-00001\.parquet is missing"):
        folder.parts()


def test_a_missing_column_or_a_damaged_part_is_one_line(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    with pytest.raises(ScoresError, match=r"no column 'entropy' \(it has id, loss, embedding\)"):
        list(folder.scan(["id", "entropy"]))
    part = tmp_path / "part-00001.parquet"
    for content in (b"", b"PAR1 but not really PAR1", None):
        part.unlink()
        part.mkdir() if content is None else part.write_bytes(content)
        with pytest.raises(ScoresError, match=r"cannot be read: .*part-00001\.parquet"):
            list(folder.scan(["id"]))


def test_an_unfinished_run_is_not_selected_from(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=r"not finished \(3 parts so far\)"):
        filled(tmp_path, "running").opened()


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match="lloss score MODEL POOL"):
        ScoresFolder(tmp_path).opened()


def test_a_damaged_run_file_is_one_line(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ScoresError, match=r"run\.json: is damaged"):
        folder.opened()
    (tmp_path / "run.json").write_text(json.dumps({"state": "complete"}))
    assert folder.opened() is folder
