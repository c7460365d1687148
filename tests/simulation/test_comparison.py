from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lloss.simulation.comparison import compare
from lloss.simulation.results import SimulationError

from .simulated_rows import METRIC, rows, write

GAINS = {
    "balanced": {"random": 0.0, "entropy": -0.03, "auto": 0.0},
    "long-tail:50": {"random": 0.0, "entropy": 0.09, "auto": 0.1},
}


def test_figures_of_a_scenario(tmp_path: Path) -> None:
    found = rows(GAINS)
    comparison = compare(write(tmp_path, found))
    scenario = comparison.scenarios[1]
    auto, random = scenario.of("auto"), scenario.of("random")
    assert comparison.complete and not comparison.problems
    assert (auto.finished, auto.planned) == (10, 10)
    assert auto.labels.tolist() == [100, 200, 300, 400, 500, 600]
    runs = {
        name: np.array([row.figures[METRIC] for row in found
                        if (row.scenario, row.method) == (scenario.name, name)]).reshape(10, 6)
        for name in ("auto", "random")
    }  # fmt: skip
    assert auto.final.value == pytest.approx(runs["auto"][:, -1].mean())
    assert auto.later.value == pytest.approx(runs["auto"][:, 1:].mean())
    assert auto.gain is not None and auto.gain.sign == 1
    assert auto.gain.final.value == pytest.approx((runs["auto"] - runs["random"])[:, -1].mean())
    assert random.gain is None and random.reach is None
    assert auto.lead is None and random.lead is not None
    assert random.lead.final == auto.gain.final
    assert auto.reach is not None and auto.reach.mean.labels < 500
    assert auto.reach.reaching == auto.reach.trials == 10


def test_other_figures_are_of_the_end_the_picks_or_the_cycles(tmp_path: Path) -> None:
    auto = compare(write(tmp_path, rows(GAINS))).scenarios[0].of("auto")
    assert list(auto.figures) == ["worst class", "recall of truck", "count of truck"]
    assert auto.figures["count of truck"].value == 15  # of the last cycle
    assert auto.picks["junk"].value == pytest.approx(0.3)  # mean of the cycles that picked
    assert auto.picks["rare"].value == 15  # sum of five
    assert auto.head.value == pytest.approx(0.62)
    assert auto.entropy.value == pytest.approx(0.66)
    assert auto.seconds["train"] == pytest.approx(1.5)
    assert auto.seconds["select"] == pytest.approx(0.02)  # of the cycles that selected
    assert [(each.decided, each.count) for each in auto.choices] == [
        ("herding by loss", 50), ("coverage", 10)
    ]  # fmt: skip
    assert auto.choices[1].reason.startswith("the predicted loss ranks")


def test_what_was_not_measured_is_nothing(tmp_path: Path) -> None:
    found = [
        replace(row, head=None, entropy=None, picks={}, choice="", seconds={},
                figures={METRIC: row.figures[METRIC]})
        for row in rows(GAINS)
    ]  # fmt: skip
    auto = compare(write(tmp_path, found)).scenarios[0].of("auto")
    assert math.isnan(auto.head.value) and math.isnan(auto.entropy.value)
    assert not auto.figures and not auto.picks and not auto.choices and not auto.seconds


def test_highest_and_who_is_level_with_it(tmp_path: Path) -> None:
    balanced, tail = compare(write(tmp_path, rows(GAINS, noise=0.001))).scenarios
    assert tail.highest == "auto" and list(tail.level) == []
    assert "entropy" not in balanced.level and balanced.highest != "entropy"


def test_all_scenarios_together(tmp_path: Path) -> None:
    comparison = compare(write(tmp_path, rows(GAINS)))
    single = [each.of("auto").gain for each in comparison.scenarios]
    mean = np.mean([each.final.value for each in single if each is not None])
    assert comparison.gains["auto"].final.value == pytest.approx(mean)
    assert set(comparison.leads) == {"random", "entropy"}
    one = compare(write(tmp_path / "one", rows({"balanced": GAINS["balanced"]})))
    assert not one.gains and not one.leads


def test_missing_trials_settle_nothing(tmp_path: Path) -> None:
    found = [row for row in rows(GAINS) if (row.method, row.trial) != ("entropy", 9)]
    comparison = compare(write(tmp_path, found))
    assert not comparison.complete
    assert (comparison.finished, comparison.planned) == (58, 60)
    gains = [each.of("auto").gain for each in comparison.scenarios]
    assert [gain.sign for gain in gains if gain is not None] == [0, 0]


def test_a_folder_without_a_simulation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="holds no simulation"):
        compare(tmp_path)
