"""Folders of annotation files, found by the walk that pools take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lloss.annotations import Problems
from lloss.data.annotation_folders import (
    CLASS_FILES,
    annotation_files,
    file_among,
    holds_annotations,
)
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError
from lloss.tasks import get_task


def _fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_suffixes_count_in_any_case_and_hidden_files_never(tmp_path: Path) -> None:
    hidden = ["._a.xml", ".git/b.xml", "__MACOSX/c.xml", "@eaDir/d.xml"]
    folder = _fill(tmp_path, "b.XML", "a.xml", "sub/c.Xml", "classes.txt", *hidden)
    problems = Problems()
    found = annotation_files(folder, ".xml", "XML annotations", problems)
    assert found == [(name, folder / name) for name in ("a.xml", "b.XML", "sub/c.Xml")]
    assert problems.notes == [f"{folder}: passed over 4 hidden or system files or folders"]


@pytest.mark.parametrize(
    ("beside", "note"),
    [(False, "passed over 3 other files (2 .txt, 1 .jpg)"), (True, "passed over 2 other files (")],
)
def test_other_files_are_counted_but_images_where_they_are_expected(
    tmp_path: Path, beside: bool, note: str
) -> None:
    folder = _fill(tmp_path, "a.xml", "b.jpg", "c.txt", "d.txt")
    problems = Problems()
    assert len(annotation_files(folder, ".xml", "XML annotations", problems, beside)) == 1
    assert problems.notes[0].startswith(f"{folder}: {note}")


def test_a_folder_without_such_files_names_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"nowhere: no such folder of masks \(\*\.png\)"):
        annotation_files(tmp_path / "nowhere", ".png", "masks", Problems())
    folder = _fill(tmp_path / "masks", "a.tif")
    with pytest.raises(LabelError, match=r"holds no mask \(\*\.png\); passed over 1 other file"):
        annotation_files(folder, ".png", "masks", Problems())


def test_names_that_differ_in_the_suffix_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="another file has its name in other letters; remove one"):
        annotation_files(_fill(tmp_path, "a.xml", "a.XML"), ".xml", "XML annotations", Problems())


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 10]}],
    "categories": [{"id": 0, "name": "animals"}, {"id": 1, "name": "cat"}],
}


@pytest.mark.parametrize(
    ("task", "name", "text"),
    [
        ("detection", "_annotations.coco.json", json.dumps(COCO)),
        ("detection", "_annotations.csv", "filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,1,9,9"),
        ("detection", "metadata.jsonl", '{"file_name": "a.png", "objects": {"bbox": []}}'),
        ("classification", "_classes.csv", "filename, cat, dog\na.png, 1, 0"),
        ("classification", "metadata.csv", "file_name,label\na.png,cat"),
        ("classification", "metadata.jsonl", '{"file_name": "a.png", "label": "cat"}'),
    ],
)
def test_a_file_among_the_images_labels_them(
    tmp_path: Path, picture: Callable[..., Path], task: str, name: str, text: str
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / name).write_text(text)
    labeled = get_task(task).open(str(tmp_path), None, tmp_path, Problems())
    assert [item.id for item in labeled.items] == ["a.png"]
    if task == "detection":
        assert holds_annotations(tmp_path)
        assert list(read_objects(tmp_path, Problems())) == ["a.png"]


def test_of_two_files_among_the_images_one_must_be_named(
    tmp_path: Path, picture: Callable[..., Path]
) -> None:
    _fill(tmp_path, "metadata.csv", "_classes.csv")
    assert file_among(tmp_path, ("none.csv",)) is None
    with pytest.raises(
        LabelError, match="holds _classes.csv and metadata.csv; give one of them by"
    ):
        file_among(tmp_path, CLASS_FILES)
    (tmp_path / "_classes.csv").unlink()
    assert file_among(tmp_path, CLASS_FILES) is None  # no image beside it
    picture(tmp_path / "a.png")
    assert file_among(tmp_path, CLASS_FILES) == tmp_path / "metadata.csv"
