"""A part of several simulations has one report, of all their trials."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ..html_page import HtmlPage
from ..simulation.simulated_rows import rows, write

TRIALS = 10


def test_simulations_of_a_trial_each_are_reported_as_one(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rows({"redundant:8": {"random": 0.0, "auto": 0.1}}, trials=TRIALS)
    seeds = []

    def simulated(*words: Any) -> None:
        given = dict(itertools.pairwise(words))
        seeds.append(given["--seed"])
        assert given["--trials"] == 1
        own = [row for row in made if row.trial == given["--seed"]]
        write(
            given["-o"],
            [dataclasses.replace(row, trial=0) for row in own],
            trials=1,
            seed=given["--seed"],
        )

    monkeypatch.setattr(bench, "run_lloss", simulated)
    monkeypatch.setattr(bench, "_frozen", lambda out: [])
    arrays, out = tmp_path / "arrays", tmp_path / "out"
    arrays.mkdir()
    for name in ("train", "test"):
        np.save(arrays / f"{name}_images.npy", np.zeros((4, 8, 8, 3), np.uint8))
        np.save(arrays / f"{name}_labels.npy", np.arange(4))
    options = ["--arrays", arrays, "--out", out, "--only", "redundant", "--trials", TRIALS]
    found = CliRunner().invoke(bench.main, list(map(str, options)), catch_exceptions=False)
    assert found.exit_code == 0 and seeds == list(range(TRIALS))
    page = HtmlPage((out / "redundant" / "report.html").read_text("utf-8"))
    assert f"over {TRIALS} paired trials, 100 + 5 × 100 labels" in page.text
    assert f"0 to {TRIALS - 1}" in page.text and "auto beats random on redundant:8" in page.text
    assert len((out / "redundant" / "results.csv").read_text("utf-8").splitlines()) > 2 * 6
