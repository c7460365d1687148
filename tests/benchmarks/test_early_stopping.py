"""The table of epochs, and that a trial which is there is not trained again."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats


def _row(trial: int, last: float, chosen: float) -> dict[str, Any]:
    found = {"last": last, "epochs": 60.0, "seconds": 100.0, "trial": trial}
    for name in ("highest accuracy", "lowest loss"):
        found |= {name: chosen, f"epoch of {name}": 30.0 + trial}
    return found


def test_differences_are_paired_and_have_students_interval(bench: ModuleType) -> None:
    last, chosen = np.array([0.50, 0.52, 0.47]), np.array([0.49, 0.48, 0.46])
    rows = [_row(trial, *pair) for trial, pair in enumerate(zip(last, chosen))]
    text = bench.table(rows)
    off = chosen - last
    low, high = stats.t.interval(0.95, 2, off.mean(), stats.sem(off))
    assert "3 trials of 60 epochs, 100 s of a core each" in text
    assert (
        f"| lowest loss, median 31 | 0.477 | {off.mean():+.3f} ({low:+.3f} to {high:+.3f}) |"
        in (text)
    )
    assert "| lowest loss, median 30 | 0.490 | -0.010 |" in bench.table(rows[:1])


def test_finished_trials_of_the_same_settings_are_kept(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def trial(data: Any, test: Any, given: Any, seed: int) -> dict[str, Any]:
        trained.append(seed)
        return _row(seed, 0.5, 0.5 - seed / 100)

    monkeypatch.setattr(bench, "_trial", trial)
    monkeypatch.setattr(bench, "_data", lambda *words: None)
    words = ["--arrays", str(tmp_path), "--out", str(tmp_path / "rows.jsonl")]
    for count, more, expected in ((2, [], [0, 1]), (3, [], [2]), (1, ["--epochs", "5"], [0])):
        trained.clear()
        found = CliRunner().invoke(bench.main, [*words, "--trials", str(count), *more])
        assert found.exit_code == 0 and trained == expected, found.output
        assert f"{count} trials of" in found.output
    lines = (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [0, 1, 2, 0]
