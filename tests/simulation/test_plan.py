from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lloss.simulation.plan import read_plan
from lloss.simulation.results import SimulationError

from .simulated_rows import METRIC, rows, write

ROWS = rows({"balanced": {"random": 0, "auto": 0.02}}, trials=2)


def test_reads_what_was_fixed(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, ROWS, trials={"random": 20, "auto": 10}))
    assert plan.metrics == {"balanced": METRIC}
    assert (plan.trials, plan.most_trials) == ({"random": 20, "auto": 10}, 20)
    assert (plan.reference, plan.default, plan.cycles) == ("random", "auto", 6)
    assert plan.facts()["data"] == "photos" and "methods" not in plan.facts()


def test_scenarios_may_have_metrics_of_their_own(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"scenarios": ["a", "b"], "metrics": {"b": "accuracy"}}
    plan = read_plan(write(tmp_path, ROWS, **changes))
    assert plan.metrics == {"a": METRIC, "b": "accuracy"}
    assert plan.metric == f"{METRIC} or accuracy"


def test_a_reference_that_is_no_method_is_none(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, ROWS, reference="chance", default=None))
    assert (plan.reference, plan.default) == ("", "")


def test_keeps_the_numbers_of_trials_before_some_were_added(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, ROWS, trials=24, extended=[8, 12]))
    assert plan.extended == [8, 12]
    assert not read_plan(write(tmp_path / "two", ROWS)).extended


@pytest.mark.parametrize(
    "changes",
    [{"methods": []}, {"scenarios": None}, {"trials": {"random": 3}}, {"cycles": "many"},
     {"metrics": 3, "metric": None}, {"extended": 3}, {"extended": ["x"]},
     {"extended": [10]}, {"extended": [8, 2]}],
)  # fmt: skip
def test_damaged_settings_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    out = write(tmp_path, ROWS, **changes)
    with pytest.raises(SimulationError, match=r"settings\.json: is damaged.*another folder"):
        read_plan(out)
