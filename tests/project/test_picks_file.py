from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lloss.errors import ProjectError
from lloss.project.picks_file import (
    RANDOM,
    SELECTED,
    monitoring_bound,
    read_picks,
    with_random,
)
from lloss.scores.score_source import TableScores
from lloss.selection import Selection, SelectionSettings, select
from lloss.selection.hashing import draw_hash
from lloss.selection.selection_file import write_selection


def selection(ids: list[str], strategy: str = "top") -> Selection:
    table = pa.table({"id": ids, "loss": np.arange(len(ids), 0.0, -1)})
    return select(TableScores(table), SelectionSettings(k=len(ids), strategy=strategy))


def test_picks_drawn_to_monitor_come_last_and_are_marked(tmp_path: Path) -> None:
    both = with_random(selection(["b", "a"]), selection(["d", "c"], "random"))
    write_selection(both, tmp_path / SELECTED)
    found = read_picks(tmp_path)
    assert found.chosen == ["b", "a"] and sorted(found.random) == ["c", "d"]
    assert both.scores.tolist()[:2] == [2, 1] and len(both.scores) == 4
    only = with_random(None, selection(["c"], "random"))
    assert list(only.reasons) == [RANDOM]


def test_picks_of_earlier_versions_have_no_reason(tmp_path: Path) -> None:
    (tmp_path / SELECTED).write_text("id,score,rank\na,1.0,1\n")
    assert read_picks(tmp_path).chosen == ["a"] and not read_picks(tmp_path).random


def test_unreadable_picks_are_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"selected\.csv: cannot be read"):
        read_picks(tmp_path)
    (tmp_path / SELECTED).write_text("name\na\n")
    with pytest.raises(ProjectError, match=r"selected\.csv: cannot be read"):
        read_picks(tmp_path)


def test_the_bound_is_the_largest_number_of_complete_cycles(tmp_path: Path) -> None:
    assert monitoring_bound(tmp_path, 5) == -1
    for cycle, ids in (("000", ["a"]), ("001", ["b", "c"]), ("002", ["d"])):
        folder = tmp_path / cycle
        folder.mkdir()
        drawn = selection(ids, "random")
        write_selection(with_random(None, replace(drawn, ids=ids)), folder / SELECTED)
        if cycle != "002":  # it is not complete
            (folder / "summary.json").touch()
    assert monitoring_bound(tmp_path, 5) == max(draw_hash(id, 5) for id in "abc")
