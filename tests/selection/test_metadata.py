from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.annotations import Problems
from lloss.errors import SettingsError
from lloss.scores.score_source import TableScores
from lloss.selection import SelectionSettings
from lloss.selection.metadata import joined, joined_with

from .score_tables import score_table

IDS = ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
SOURCE = TableScores(score_table([0.5, 0.25, 0.125], IDS))


def _joined(path: Path, column: str = "camera") -> list[str | None]:
    joined = joined_with(SOURCE, path, column)
    return [value for batch in joined.scan([column]) for value in batch[column].to_pylist()]


def test_a_column_of_csv_or_parquet_is_joined_by_id_as_text(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("camera;id;day\n7;a/1.jpg;mon\n8;b/1.jpg;\n")
    assert _joined(path) == ["7", None, "8"]
    assert _joined(path, "day") == ["mon", None, None]
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"id": IDS, "camera": [3, 4, None], "site": [["x"]] * 3}), path)
    assert _joined(path) == ["3", "4", None]
    with pytest.raises(SettingsError, match=r"'site' holds no text or numbers"):
        _joined(path, "site")


def test_the_joined_scores_have_all_columns(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("id,loss,place\na/2.jpg,9,sea\n")
    joined = joined_with(SOURCE, path, "place")
    assert joined.columns() == ["id", "loss", "place"]
    (batch,) = joined.scan(["place", "loss", "id"], ["a/2.jpg", "b/1.jpg"])
    assert batch.to_pydict() == {
        "place": ["sea", None],
        "loss": [0.25, 0.125],
        "id": ["a/2.jpg", "b/1.jpg"],
    }
    (batch,) = joined.scan(["loss"])
    assert batch.schema.names == ["loss"]
    assert joined_with(SOURCE, path, "loss").columns() == [
        "id",
        "loss",
    ]  # the table's own comes first


def test_names_that_are_not_ids_are_matched_as_labels_are(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("id,camera\ndata/a/1.jpg,left\n2.png,right\nc/7.jpg,left\n")
    problems = Problems(skip=True)
    joined = joined_with(SOURCE, path, "camera", problems)
    assert dict(joined.values) == {"a/1.jpg": "left", "a/2.jpg": "right"}
    assert problems.lines() == [f"{path}: 1 of 3 rows matches no image of the scores"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,site\na/1.jpg,x\n", "needs a column 'id' and 'camera'"),
        ("camera\nx\n", "needs a column 'id' and 'camera'"),
        ("id,camera\n1.jpg,x\n", r"'1.jpg' may be 'a/1.jpg' or 'b/1.jpg'; write which"),
        ("id,camera\na/1.jpg,x\na/1.jpg,y\n", r"gives 'a/1.jpg' the camera 'x' and 'y'"),
        ("id,camera\na/1.jpg,x\nz/a/1.jpg,y\n", r"gives 'a/1.jpg' the camera 'x' and 'y'"),
        ("id,camera\nc/7.jpg,x\n", "matches no image of the scores: 'c/7.jpg' is not in the pool"),
        ("id,camera\n", "matches no image of the scores: it has no rows"),
    ],
)
def test_a_table_that_cannot_be_joined(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "images.csv"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        _joined(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read as a table"):
        _joined(tmp_path / "missing.csv")
    path = tmp_path / "images.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(SettingsError, match="cannot be read as a table"):
        _joined(path)
    pq.write_table(pa.table({"id": IDS}), path)
    with pytest.raises(SettingsError, match=r"has no column 'camera' \(it has id\)"):
        _joined(path)


def test_groups_by_id_without_a_value_are_none() -> None:
    settings = SelectionSettings(k=1, balance="camera")
    groups = {"a/1.jpg": 7, "a/2.jpg": None, "b/1.jpg": float("nan"), "c": "x"}
    found = joined(SOURCE, settings, groups)
    values = [value for batch in found.scan(["camera"]) for value in batch["camera"].to_pylist()]
    assert values == ["7", None, None]
    with pytest.raises(SettingsError, match="none of its 1 ids is in the scores"):
        joined(SOURCE, settings, {"c": "x"})
    with pytest.raises(SettingsError, match="^metadata: all 2 values are empty; give groups"):
        joined(SOURCE, settings, {"a/1.jpg": "", "a/2.jpg": None})
