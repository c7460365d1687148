"""One row of the list of formats is all that a new format needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import ObjectLabel, Problems
from lloss.data import label_formats
from lloss.data.label_formats import FORMATS, LabelFile, LabelFormat
from lloss.data.label_joining import labeled_pool
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError
from lloss.selection.exclusions import read_excluded


def _read_folder(file: LabelFile, problems: Problems) -> dict[str, ObjectLabel]:
    flags = np.zeros(1, np.bool_)
    box = np.array([[0, 0, 4, 4]], np.float32)
    paths = sorted(file.path.glob("*.boxes"))
    return {path.stem: ObjectLabel(("dog",), box, flags, flags) for path in paths}


def test_tasks_exclusions_and_pools_read_a_format_of_the_list(
    tmp_path: Path, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "labeled"
    picture(folder / "a.jpg")
    picture(tmp_path / "data" / "b.jpg")
    (folder / "a.boxes").write_text("")
    with pytest.raises(LabelError, match=r"holds no XML annotation"):
        read_objects(folder, Problems())
    assert list(labeled_pool(tmp_path / "data", [folder]).ids()) == ["b.jpg"]
    new = LabelFormat(
        ("objects",),
        lambda file: any(file.path.glob("*.boxes")),
        _read_folder,
        folder=True,
        images_beside=True,
    )
    monkeypatch.setattr(label_formats, "FORMATS", (new, *FORMATS))
    assert [label.names for label in read_objects(folder, Problems()).values()] == [("dog",)]
    (excluded,) = read_excluded([folder], Problems())
    assert excluded.names == {"a": ("a",)} and excluded.own_suffix
    assert sorted(labeled_pool(tmp_path / "data", [folder]).ids()) == ["b.jpg", "labeled/a.jpg"]
