"""Folders of annotation files, found by the walk that pools take."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.annotations import Problems
from lloss.data.annotation_folders import annotation_files
from lloss.errors import LabelError


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
