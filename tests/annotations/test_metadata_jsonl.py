"""``metadata.jsonl`` of Hugging Face's imagefolder: classes and objects, and broken rows."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.annotations import Problems
from lloss.data.class_labels import read_class_labels
from lloss.data.label_formats import read_any_labels
from lloss.data.object_labels import open_objects, read_objects
from lloss.errors import LabelError

from ..annotation_files import check_broken

CAT = {"bbox": [[10, 5, 20.5, 10], [0, 0, 40, 30]], "categories": ["cat", "dog"]}
EMPTY = {"bbox": [], "categories": []}


def write_rows(folder: Path, *rows: Any) -> Path:
    path = folder / "metadata.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\r\n".join([*lines, ""]))
    return path


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {"file_name": name, **fields}


def test_boxes_are_those_of_coco(tmp_path: Path) -> None:
    numbered = {"bbox": [[1, 2, 3, 4]], "category": [0], "area": [12]}
    rows = row("a.jpg", objects=CAT), row("b.jpg", objects=EMPTY), row("c.jpg", objects=numbered)
    path, problems = write_rows(tmp_path, *rows, row("d.jpg", text="a cat")), Problems()
    labels = read_objects(path, problems)
    assert list(labels) == ["a.jpg", "b.jpg", "c.jpg"] and labels["b.jpg"].empty
    assert labels["a.jpg"].boxes.tolist() == [[10, 5, 30.5, 15], [0, 0, 40, 30]]
    assert [labels[name].names for name in ("a.jpg", "c.jpg")] == [("cat", "dog"), ("0",)]
    assert problems.notes == [f"{path}: 1 of 4 rows has no objects: not labeled yet"]
    assert list(read_any_labels(path, Problems())) == ["a.jpg", "b.jpg", "c.jpg"]


def test_rows_may_be_of_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    objects = [{"bbox": [[10.0, 5.0, 20.5, 10.0]], "categories": [1]}, None]
    names = ["a.jpg", "b.jpg"]
    table = {"file_name": names, "objects": objects, "label": ["cat", None], "image": [b"", b""]}
    pq.write_table(pa.table(table), path)
    problems = Problems()
    labels = read_objects(path, problems)
    assert labels["a.jpg"].boxes.tolist() == [[10, 5, 30.5, 15]] and labels["a.jpg"].names == ("1",)
    assert problems.notes == [f"{path}: 1 of 2 rows has no objects: not labeled yet"]
    assert read_class_labels(path, Problems()) == {"a.jpg": "cat"}
    pq.write_table(pa.table({"file_name": ["a.jpg", "./a.jpg"]}), path)
    with pytest.raises(LabelError, match="row 2: './a.jpg' is in row 1 too"):
        read_objects(path, Problems())
    pq.write_table(pa.table({"id": ["a.jpg"]}), path)
    with pytest.raises(LabelError, match=r"needs a column 'file_name' \(found: id\)"):
        read_any_labels(path, Problems(skip=True))
    path.write_bytes(b"PAR1")
    with pytest.raises(LabelError, match="cannot be read as Parquet"):
        read_objects(path, Problems())


def test_rows_are_those_that_datasets_reads(tmp_path: Path, picture: Any) -> None:
    datasets = pytest.importorskip("datasets")
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "data" / name)
    path = write_rows(tmp_path / "data", row("a.jpg", objects=CAT), row("b.jpg", objects=EMPTY))
    theirs = datasets.load_dataset(
        "imagefolder", data_dir=str(path.parent), split="train", cache_dir=str(tmp_path / "cache")
    )
    ours = open_objects(str(path), Problems())
    for label, their in zip(ours.labels, theirs, strict=True):
        corners = [
            [x, y, x + width, y + height] for x, y, width, height in their["objects"]["bbox"]
        ]
        assert label.boxes.tolist() == corners
        assert list(label.names) == their["objects"]["categories"]
        assert label.size == their["image"].size[::-1]


def test_classes_of_images(tmp_path: Path) -> None:
    rows = row("a.jpg", label=" cat "), row("b.jpg", label=3), row("c.jpg", label=None)
    path, problems = write_rows(tmp_path, *rows), Problems()
    assert read_class_labels(path, problems) == {"a.jpg": "cat", "b.jpg": "3"}
    assert problems.notes == [f"{path}: 1 of 3 rows has no label: not labeled yet"]
    assert list(read_any_labels(path, Problems())) == ["a.jpg", "b.jpg"]


BROKEN = {
    "not JSON": ("{", "is not JSON"),
    "nameless": ({"label": "cat"}, "lacks the key 'file_name'"),
    "twice": ('{"file_name": "b", "file_name": "b"}', "has the key 'file_name' twice"),
    "count": (row("b.jpg", objects={"bbox": [[1, 2, 3, 4]]}), "1 boxes, but 0 categories"),
    "numbers": (row("b.jpg", objects={"bbox": [[1, 2, 3]], "categories": [0]}), "of length 4"),
    "turned": (row("b.jpg", objects={"bbox": [[9, 2, -3, 4]], "categories": [0]}), "wrong order"),
    "empty": (
        row("b.jpg", objects={"bbox": [[1, 2, 3, 4]], "categories": [" "]}),
        "class is empty",
    ),
}


@pytest.mark.parametrize(("broken", "what"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_or_left_out(tmp_path: Path, broken: Any, what: str) -> None:
    path = write_rows(tmp_path, row("a.jpg", objects=CAT), broken)
    expected = f"^{re.escape(str(path))}, line 2.*{what}"
    check_broken(partial(read_objects, path), expected, ["a.jpg"])


def test_an_image_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path, row("a.jpg", label="cat"), row("./a.jpg", label="dog"))
    with pytest.raises(LabelError, match=r"line 2: './a.jpg' is in line 1 too; keep one"):
        read_class_labels(path, Problems(skip=True))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="none.jsonl: cannot be read: No such file"):
        read_objects(tmp_path / "none.jsonl", Problems())
