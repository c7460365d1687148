"""Files of labels that are of another kind than the task reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.annotations import Problems
from lloss.data.object_labels import read_objects
from lloss.data.pose_labels import read_persons
from lloss.errors import LabelError


def test_labels_for_another_task_are_named_as_such(tmp_path: Path) -> None:
    table = tmp_path / "labels.CSV"
    table.write_text("id,label\na.png,cat\n")
    for read in (read_objects, read_persons):
        with pytest.raises(LabelError, match=r"is CSV, .*--task classification\); .* reads JSON"):
            read(table, Problems())
    with pytest.raises(LabelError, match="is a folder; this task reads a JSON file"):
        read_persons(tmp_path, Problems())
