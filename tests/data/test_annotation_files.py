"""Folders of annotation files, found by the walk that pools take."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.annotations import Problems
from lloss.data.annotation_files import annotation_files
from lloss.data.voc_folders import read_split, read_voc_folder
from lloss.errors import LabelError

HIDDEN = ["._a.xml", ".git/b.xml", "__MACOSX/c.xml", "@eaDir/d.xml"]


def _fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_suffixes_count_in_any_case_and_hidden_files_never(tmp_path: Path) -> None:
    folder = _fill(tmp_path, "b.XML", "a.xml", "sub/c.Xml", "classes.txt", *HIDDEN)
    problems = Problems()
    found = annotation_files(folder, ".xml", "XML annotations", problems)
    assert found == [(name, folder / name) for name in ("a.xml", "b.XML", "sub/c.Xml")]
    assert problems.notes == [f"{folder}: passed over 4 hidden or system files or folders"]


def test_other_files_are_counted_but_images_where_they_are_expected(tmp_path: Path) -> None:
    folder = _fill(tmp_path, "a.png", "b.jpg", "c.txt", "d.txt")
    problems = Problems()
    assert len(annotation_files(folder, ".png", "masks", problems)) == 1
    expected = f"{folder}: passed over 3 other files (2 .txt, 1 .jpg)"
    assert problems.notes == [expected]
    beside = Problems()
    _fill(tmp_path, "a.xml")
    annotation_files(folder, ".xml", "XML annotations", beside, images_beside=True)
    assert beside.notes == [f"{folder}: passed over 2 other files (2 .txt)"]


def test_a_folder_without_such_files_names_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"nowhere: no such folder of masks \(\*\.png\)"):
        annotation_files(tmp_path / "nowhere", ".png", "masks", Problems())
    folder = _fill(tmp_path / "masks", "a.tif")
    with pytest.raises(LabelError, match=r"holds no mask \(\*\.png\); passed over 1 other file"):
        annotation_files(folder, ".png", "masks", Problems())


def test_voc_files_are_annotations_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    text = "<annotation><filename>{}.jpg</filename></annotation>"
    for name in ("a.xml", "b.XML", "sub/c.XML", "._a.xml"):
        path = _fill(tmp_path, name) / name
        path.write_text(text.format(path.stem))
    labels = read_voc_folder(tmp_path, Problems())
    assert {key: label.named for key, label in labels.items()} == {
        "a": "a.jpg", "b": "b.jpg", "sub/c": "sub/c.jpg",
    }  # fmt: skip


def test_two_files_of_one_name_but_for_the_suffixs_case(tmp_path: Path) -> None:
    for name in ("a.xml", "a.XML", "b.xml"):
        (tmp_path / name).write_text("<annotation/>")
    with pytest.raises(LabelError, match="is of the same image as"):
        read_voc_folder(tmp_path, Problems())
    problems = Problems(skip=True)
    assert list(read_voc_folder(tmp_path, problems)) == ["b"]
    assert len(problems.broken) == 1


def test_an_image_of_a_split_may_have_any_image_suffix(tmp_path: Path) -> None:
    year = tmp_path / "VOC2007"
    names = ["a.JPG", "b.Png", "c.jfif", "d.jpg"]
    _fill(year, *(f"JPEGImages/{name}" for name in names), "ImageSets/Main/train.txt")
    (year / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\n")
    assert [row.id for row in read_split([year], "train")] == names
