"""CSV of labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text, read_labels
from lloss.errors import LabelError, LlossError


def _csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "l.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("\ufeffid,label\r\na.jpg,cat\r\n", {"a.jpg": "cat"}),
        ('id,label\n"a, ""b"".jpg",cat\n', {'a, "b".jpg': "cat"}),
        ("LABEL , Id,who\n cat\u200b ,a,me\ncafe\u0301,b,me\n", {"a": "cat", "b": "caf\u00e9"}),
    ],
)
def test_labels_are_read_by_id(tmp_path: Path, text: str, labels: dict[str, str]) -> None:
    assert read_labels(_csv(tmp_path, text)) == labels


def test_labels_are_not_written_where_they_could_not_be_read_again() -> None:
    assert labels_text({'a, "b"': "x"}) == 'id,label\n"a, ""b""",x\n'
    for id in ("a\nb", "a\rb", "a\0b"):
        with pytest.raises(LlossError, match="has a line break or a NUL in it"):
            labels_text({"c": "x", id: "x"})


@pytest.mark.parametrize(
    ("columns", "noted"),
    [("id,label,Split", "Split"), ("image,id,label", "image"), ("id,note,label", "")],
)
def test_columns_that_may_matter_are_noted(tmp_path: Path, columns: str, noted: str) -> None:
    problems = Problems()
    read_labels(_csv(tmp_path, f"{columns}\na,b,c\n"), problems=problems)
    expected = f"only the columns id and label are read, not {noted}: all rows are labels"
    assert len(problems.notes) == bool(noted)
    assert not noted or expected in problems.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,cat\nb,cat\na,cat\n", "'a' is in line 2 and in line 4"),
        *((f"id,label\na,cat\n{row}\n", "line 3: an empty id or label")
          for row in ("b,", "b,  ", ",cat", " ,cat", "b,\u200b", ",")),
        ("id,class\na,b\n", r"'id' and 'label' \(found: id, class"),
        ("", r"'id' and 'label' \(found: an empty"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(_csv(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no such file; it needs the columns 'id' and 'label'"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(LabelError, match="is a folder; give a CSV with a column 'id'"):
        read_labels(tmp_path, needs_label=False)
    with pytest.raises(LabelError, match="line 2: is not UTF-8 text"):
        read_labels(_csv(tmp_path, "id,label\né.jpg,cat\n", "latin-1"))


def test_a_column_file_name_stands_for_the_id(tmp_path: Path) -> None:
    """As in the metadata.csv of Hugging Face's imagefolder."""
    problems = Problems()
    text = "file_name,label\ntrain/a.jpg,cat\n"
    assert read_labels(_csv(tmp_path, text), problems=problems) == {"train/a.jpg": "cat"}
    assert not problems.notes
    both = _csv(tmp_path, "file_name,id,label\na.jpg,7,cat\n")
    assert read_labels(both, problems=problems) == {"7": "cat"}
    assert "not file_name" in problems.notes[0]
