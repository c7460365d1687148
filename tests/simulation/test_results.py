from __future__ import annotations

import json
from pathlib import Path

import pytest

from lloss.simulation.results import (
    PICKS,
    RESULTS,
    CycleRow,
    Picks,
    ResultsWriter,
    SimulationError,
    fix_settings,
    read_picks,
    read_rows,
    read_settings,
)

ROW = CycleRow(
    "rare:ä:1%", "herding", 2, 1, 40, {"macro accuracy": 0.5}, {"spearman": 0.1}, None,
    {"junk": 0.25}, "herding by loss", {"train": 0.5},
)  # fmt: skip
PICKED = Picks("rare:ä:1%", "herding", 2, 1, ("a", "b\udcff"), (1.25, 2))


def test_rows_and_picks_are_read_as_they_were_written(tmp_path: Path) -> None:
    ResultsWriter(tmp_path).write(ROW, PICKED)
    assert read_rows(tmp_path) == [ROW]
    assert read_picks(tmp_path) == [PICKED]


def test_a_folder_without_results_has_none(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == [] and read_picks(tmp_path) == []


def test_undefined_figures_are_left_out(tmp_path: Path) -> None:
    row = CycleRow(
        "balanced", "random", 0, 0, 2, {"accuracy": 1.0, "worst class": float("nan")}, None, None
    )
    ResultsWriter(tmp_path).write(row, None)
    assert read_rows(tmp_path)[0].figures == {"accuracy": 1.0}
    assert "NaN" not in (tmp_path / RESULTS).read_text(encoding="utf-8")


def test_a_torn_last_line_is_not_read_and_is_cut_before_more_is_written(tmp_path: Path) -> None:
    ResultsWriter(tmp_path).write(ROW, PICKED)
    for name in (RESULTS, PICKS):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole + whole[:20])
    assert read_rows(tmp_path) == [ROW] and read_picks(tmp_path) == [PICKED]
    ResultsWriter(tmp_path).write(ROW, PICKED)
    assert len((tmp_path / RESULTS).read_bytes().splitlines()) == 2
    assert read_rows(tmp_path) == [ROW]  # a cycle counts once


@pytest.mark.parametrize("line", ["{", "3", '{"scenario": "x"}', '{"other": 1}'])
def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / RESULTS).write_text(f"{ROW.line()}{line}\n{ROW.line()}", encoding="utf-8")
    with pytest.raises(SimulationError, match=r"results\.jsonl: line 2 is damaged; remove"):
        read_rows(tmp_path)


def test_a_folder_holds_one_experiment(tmp_path: Path) -> None:
    fix_settings(tmp_path, {"k": 5, "train": {"lr": 0.1, "taps": (1,)}})
    ResultsWriter(tmp_path).write(ROW, PICKED)
    fix_settings(tmp_path, {"k": 5, "train": {"lr": 0.1, "taps": (1,)}})
    assert read_settings(tmp_path)["k"] == 5
    with pytest.raises(SimulationError, match="k = 5, not 6; give the same settings"):
        fix_settings(tmp_path, {"k": 6, "train": {"lr": 0.1, "taps": (1,)}})
    with pytest.raises(SimulationError, match=r"train\.lr = 0\.1, not 0\.2"):
        fix_settings(tmp_path, {"k": 5, "train": {"lr": 0.2, "taps": (1,)}})


def test_trials_can_be_added_and_nothing_else(tmp_path: Path) -> None:
    assert fix_settings(tmp_path, {"k": 5, "trials": 8}) == 0
    ResultsWriter(tmp_path).write(ROW, None)
    with pytest.raises(SimulationError, match=r"trials = 8, not 24; .*a larger --trials adds some"):
        fix_settings(tmp_path, {"k": 5, "trials": 24})
    with pytest.raises(SimulationError, match="k = 5, not 6"):
        fix_settings(tmp_path, {"k": 6, "trials": 24}, extend=True)
    assert read_settings(tmp_path) == {"k": 5, "trials": 8}
    assert fix_settings(tmp_path, {"k": 5, "trials": 24}, extend=True) == 8
    assert fix_settings(tmp_path, {"k": 5, "trials": 24}, extend=True) == 0
    assert fix_settings(tmp_path, {"k": 5, "trials": 30}, extend=True) == 24
    assert read_settings(tmp_path) == {"k": 5, "trials": 30, "extended": [8, 24]}
    with pytest.raises(SimulationError, match="trials = 30, not 24"):
        fix_settings(tmp_path, {"k": 5, "trials": 24}, extend=True)


def test_a_simulation_that_never_began_leaves_the_folder_to_another(tmp_path: Path) -> None:
    fix_settings(tmp_path, {"k": 5, "weights_sha256": "of a file that was refused"})
    left = PICKED.line().encode("utf-8", "surrogateescape")
    (tmp_path / PICKS).write_bytes(left)  # killed before its row
    fix_settings(tmp_path, {"k": 6, "weights_sha256": "of another"})
    assert read_settings(tmp_path)["k"] == 6 and read_picks(tmp_path) == []


def test_settings_that_an_earlier_version_lacks_are_not_compared(tmp_path: Path) -> None:
    fix_settings(tmp_path, {"k": 5, "methods": {"random": {"by": "entropy"}}})
    ResultsWriter(tmp_path).write(ROW, PICKED)
    fix_settings(tmp_path, {"k": 5, "new": 1, "methods": {"random": {"by": "entropy", "new": 2}}})
    with pytest.raises(SimulationError, match=r'methods\.random\.by = "entropy", not "loss"'):
        fix_settings(tmp_path, {"k": 5, "methods": {"random": {"by": "loss"}}})


def test_another_version_is_not_taken_for_other_settings(tmp_path: Path) -> None:
    fix_settings(tmp_path, {"format": 1, "version": "0.1.0", "k": 5})
    ResultsWriter(tmp_path).write(ROW, PICKED)
    for other in ({"format": 1, "version": "0.2.0"}, {"format": 2, "version": "0.1.0"}):
        with pytest.raises(SimulationError, match=r"begun by lloss 0\.1\.0 .* another folder"):
            fix_settings(tmp_path, {**other, "k": 6})


def test_missing_and_damaged_settings_are_said(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="holds no simulation"):
        read_settings(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps([1]), encoding="utf-8")
    with pytest.raises(SimulationError, match="is damaged"):
        read_settings(tmp_path)


def test_results_without_settings_are_not_continued(tmp_path: Path) -> None:
    ResultsWriter(tmp_path).write(ROW, PICKED)
    with pytest.raises(SimulationError, match="results without settings"):
        fix_settings(tmp_path, {})
