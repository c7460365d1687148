"""CSV of labels."""

from __future__ import annotations

import re
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
        ("id,kind\na,b\n", r"'id' and 'label' \(found: id, kind"),
        ("image,path,label\na,b,c\n", "is it the column 'image' or 'path'.*the right one 'id'"),
        ("id,class,target\na,b,c\n", "is it the column 'class' or 'target'.*one 'label'"),
        ("id,cat,dog\na,1,2\n", r"needs a column 'id' and 'label' \(found: id, cat, dog"),
        ("id,cat,dog\n", "needs a column 'id' and 'label'"),
        ("id,cat,dog\na,1,0\na,0,1\n", "'a' is in line 2 and in line 3"),
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


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("Filename;Class\na.jpg;cat\n", "separated by semicolons; read: Filename and Class"),
        ("id\tlabel\na.jpg\tcat\n", "separated by tabs; read: id and label"),
        ("target,image\ncat,a.jpg\n", "read: the columns image and target"),
        ("filename, cat, dog\na.jpg, 1, 0\n", r"each of 2 columns is a class \(cat, dog\)"),
    ],
)
def test_columns_of_other_names_are_read_and_noted(tmp_path: Path, text: str, note: str) -> None:
    problems = Problems()
    assert read_labels(_csv(tmp_path, text), problems=problems) == {"a.jpg": "cat"}
    assert len(problems.notes) == 1 and re.search(note, problems.notes[0])


def test_of_a_column_for_each_class_one_is_the_label(tmp_path: Path) -> None:
    """As in Roboflow's _classes.csv, which is for several classes on an image too."""
    path = _csv(tmp_path, "filename,cat,dog\na.jpg,0,1\nb.jpg,0,0\nc.jpg,1,1\n")
    with pytest.raises(LabelError, match="line 4: is 'cat' and 'dog'; keep one class"):
        read_labels(path, problems=Problems())
    problems = Problems(skip=True)
    assert read_labels(path, problems=problems) == {"a.jpg": "dog"}
    assert problems.unusable == {str(path): {"c.jpg"}}
    assert f"{path}: 1 of 3 rows has no class: not labeled yet" in problems.notes


def test_a_column_file_name_stands_for_the_id(tmp_path: Path) -> None:
    """As in the metadata.csv of Hugging Face's imagefolder."""
    problems = Problems()
    text = "file_name,label\ntrain/a.jpg,cat\n"
    assert read_labels(_csv(tmp_path, text), problems=problems) == {"train/a.jpg": "cat"}
    assert not problems.notes
    both = _csv(tmp_path, "file_name,id,label\na.jpg,7,cat\n")
    assert read_labels(both, problems=problems) == {"7": "cat"}
    assert "not file_name" in problems.notes[0]
