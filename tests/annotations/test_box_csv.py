"""CSV of boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def _csv(folder: Path, text: str) -> Path:
    path = folder / "_annotations.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_of_an_image_are_its_objects(tmp_path: Path) -> None:
    rows = "a.jpg,40,30,cat,10,5,30,15\nb.jpg,40,30,,,,,\na.jpg,40,30,dog,0,0,40,30\n"
    labels = read_objects(_csv(tmp_path, HEADER + rows), Problems())
    assert labels["a.jpg"].names == ("cat", "dog") and labels["a.jpg"].size == (30, 40)
    assert labels["a.jpg"].boxes.tolist() == [[10, 5, 30, 15], [0, 0, 40, 30]]
    assert labels["b.jpg"].empty


def test_numbers_have_a_decimal_comma_between_semicolons(tmp_path: Path) -> None:
    path = _csv(tmp_path, "image;label;x1;y1;x2;y2\na.jpg;cat;10,5;5;30,25;15\n")
    problems = Problems()
    boxes = read_objects(path, problems)["a.jpg"].boxes
    np.testing.assert_allclose(boxes, [[10.5, 5, 30.25, 15]])
    assert "separated by semicolons; read: image and label and x1" in problems.notes[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,40,30,cat,10,5,50,15", "is outside the image of 40×30"),
        ("a.jpg,40,30,cat,1x,5,30,15", "line 2: xmin '1x' is not a number"),
        ("a.jpg,40,30,cat,,,,", "line 2: xmin '' is not a number"),
        ("a.jpg,40,30,,10,5,30,15", "line 2: its class is empty"),
        ("a.jpg,40.5,30,cat,10,5,30,15", "an image of 40.5×30 pixels"),
        (",40,30,cat,10,5,30,15", "line 2: an empty filename; write it"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_objects(_csv(tmp_path, f"{HEADER}{row}\n"), Problems())


def test_a_csv_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="has no boxes .xmin, ymin, xmax, ymax"):
        read_objects(_csv(tmp_path, "id,label\na,cat\n"), Problems())
