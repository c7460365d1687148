from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lloss.errors import ProjectError
from lloss.project.picks_file import (
    RANDOM,
    SELECTED,
    Monitored,
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


def write_draws(cycles: Path, *draws: tuple[str, list[str]]) -> None:
    for cycle, ids in draws:
        (cycles / cycle).mkdir()
        rows = [f"{id},,{rank},{RANDOM}" for rank, id in enumerate(ids, 1)]
        (cycles / cycle / SELECTED).write_text("\n".join(["id,score,rank,reason", "x,9,0,", *rows]))
        (cycles / cycle / "summary.json").touch()


def test_the_newest_draw_of_a_complete_cycle_bounds_the_random_sample(tmp_path: Path) -> None:
    assert Monitored.of(tmp_path, (), 5) is None
    a, b, c, d = sorted("abcd", key=lambda id: draw_hash(id, 5))
    write_draws(tmp_path, ("000", [a]), ("001", [b, c]), ("002", [d]))
    (tmp_path / "002/summary.json").unlink()  # it is not complete
    assert Monitored.of(tmp_path, (a, b, c), 5) == Monitored(draw_hash(c, 5), "")
    # One that drew nothing at random, since the setting is gone.
    write_draws(tmp_path, ("003", []))
    assert Monitored.of(tmp_path, (a, b, c), 5) == Monitored(draw_hash(c, 5), "")
    # New images came into the pool, with smaller numbers than those drawn before.
    write_draws(tmp_path, ("004", [a, b]))
    assert Monitored.of(tmp_path, (a, b, c), 5) == Monitored(draw_hash(b, 5), "")


def test_drawn_images_without_a_label_end_the_random_sample(tmp_path: Path) -> None:
    a, b, c = sorted("abc", key=lambda id: draw_hash(id, 5))
    write_draws(tmp_path, ("001", [a, b, c]))
    found = Monitored.of(tmp_path, (a, c, "picked"), 5)
    assert found is not None and draw_hash(a, 5) <= found.bound < draw_hash(b, 5)
    assert f"selected.csv: 1 of the 3 images drawn at random to monitor have no label ({b!r}" in (
        found.note
    )
    assert Monitored.of(tmp_path, (), 5).bound < draw_hash(a, 5)  # type: ignore[union-attr]
