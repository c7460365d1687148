"""JSON of annotations: what cannot be used is named with its place and value."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lloss.annotations import Problems
from lloss.annotations.json_fields import Box, FileName, Flag, Name, PixelCount, convert, parse_json
from lloss.annotations.problems import AnnotationError
from lloss.data.object_labels import read_objects
from lloss.data.pose_labels import read_persons
from lloss.errors import LabelError


class _Record(msgspec.Struct):
    id: int
    names: list[Name] = []
    file: FileName = "a.jpg"
    width: PixelCount | None = None
    flag: Flag = None
    box: Box = (0, 0, 0, 0)


def test_a_record_has_numbers_of_any_kind_and_clean_names() -> None:
    entry = {"id": 3, "names": [" cafe\u0301\u200b "], "width": 1280.0, "flag": 1, "other": {}}
    record = convert(entry, _Record, "a.json: [0]")
    assert record == _Record(3, [Name("caf\u00e9")], "a.jpg", 1280.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ...}, ": lacks the key 'id'"),
        ({"id": "3"}, ".id: '3': expected int"),
        ({"id": True}, ".id: True: expected int"),
        ({"box": [1, math.nan, 3, 4]}, ".box[1]: nan: expected float"),
        ({"box": [10**400, 2, 3, 4]}, ".box[0]: 1000"),
        ({"box": [1, 2, 3, 1e300]}, ".box[3]: 1e+300: expected float"),
        ({"box": [1, 2, 3, True]}, ".box[3]: True: expected float"),
        ({"box": [1, 2, 3]}, ".box: [1, 2, 3]: expected array of length 4"),
        ({"file": " "}, ".file: ' ': expected str"),
        ({"width": -2}, ".width: -2: expected float >= 0"),
        ({"width": 2.5}, ".width: 2.5: expected float"),
        ({"flag": "no"}, ".flag: 'no': expected bool"),
        *(({"names": ["a", n]}, f".names[1]: {n!r}: not a name") for n in ("", " ", "\u200b", 3)),
        ({"names": ["\ud800"]}, ".names[0]: '\\ud800': not a name"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(fields: dict[str, Any], message: str) -> None:
    entry = {key: value for key, value in {"id": 1, **fields}.items() if value is not ...}
    with pytest.raises(AnnotationError, match=f"^{re.escape('a.json: [7]' + message)}"):
        convert(entry, _Record, "a.json: [7]")
    with pytest.raises(AnnotationError, match=r"^a.json: \[7\]: 3: expected object, got int"):
        convert(3, _Record, "a.json: [7]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{\n", "line 2: is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 10**5, "is not JSON"),
        (b'[{"a": 1, "a": 2}]', "an object has the key 'a' twice"),
    ],
)
def test_a_file_that_is_not_json_is_named(text: bytes, message: str) -> None:
    with pytest.raises(LabelError, match=f"^x.json.*{message}"):
        parse_json(io.BytesIO(text), "x.json")


def test_labels_for_another_task_are_named_as_such(tmp_path: Path) -> None:
    table = tmp_path / "labels.CSV"
    table.write_text("id,label\na.png,cat\n")
    with pytest.raises(LabelError, match=r"is CSV, .*--task classification\); .* reads JSON"):
        read_persons(table, Problems())
    with pytest.raises(LabelError, match=r"has no boxes .*; classes .* --task classification"):
        read_objects(table, Problems())
    for read in (read_objects, read_persons):
        with pytest.raises(LabelError, match="no.json: cannot be read: No such file"):
            read(tmp_path / "no.json", Problems())
    with pytest.raises(LabelError, match="is a folder; give a JSON of persons"):
        read_persons(tmp_path, Problems())
