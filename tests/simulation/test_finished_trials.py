from __future__ import annotations

from dataclasses import replace

import numpy as np

from lloss.simulation.finished_trials import FinishedTrials
from lloss.simulation.plan import Plan

from .simulated_rows import METRIC, rows

GAINS = {"balanced": {"random": 0.0, "auto": 0.02}, "junk:30%": {"random": 0.0, "auto": 0.05}}
PLAN = Plan(
    metrics=dict.fromkeys(GAINS, METRIC), methods=["random", "auto"],
    trials={"random": 4, "auto": 4}, cycles=3, reference="random", default="auto",
)  # fmt: skip
ROWS = rows(GAINS, trials=4, cycles=3)


def test_curves_are_of_trials_in_order_whatever_the_order_of_rows() -> None:
    there, back = FinishedTrials(PLAN, ROWS), FinishedTrials(PLAN, ROWS[::-1])
    curves = there.curves("balanced", "auto")
    assert curves.shape == (4, 3)
    np.testing.assert_array_equal(curves, back.curves("balanced", "auto"))
    np.testing.assert_array_equal(there.curves("balanced", "auto", [2, 0]), curves[[2, 0]])
    assert there.labels("balanced", "auto").tolist() == [[100, 200, 300]] * 4
    assert there.complete and not there.problems


def test_an_unfinished_trial_and_one_without_the_metric_do_not_count() -> None:
    unfinished = [row for row in ROWS if (row.method, row.trial, row.cycle) != ("auto", 1, 2)]
    damaged = [
        replace(row, figures={}) if (row.method, row.trial) == ("random", 3) else row
        for row in unfinished
    ]
    trials = FinishedTrials(PLAN, damaged)
    assert len(trials.of("balanced", "auto")) == 3
    assert trials.common(["balanced"], ["auto", "random"]) == [0, 2]
    assert not trials.complete
    assert trials.problems == [
        f"left out, trials that have not finished or lack {METRIC} at some cycle: 4"
    ]


def test_what_was_not_planned_is_counted_and_left_out() -> None:
    other = [
        replace(ROWS[0], method="other"), replace(ROWS[0], scenario="other"),
        replace(ROWS[0], trial=4), replace(ROWS[0], cycle=3),
    ]  # fmt: skip
    trials = FinishedTrials(PLAN, [*ROWS, *other])
    assert trials.complete
    assert trials.problems == [
        "left out, rows of methods, scenarios, trials or cycles that were not planned: 4"
    ]


def test_differences_are_paired_by_trial() -> None:
    trials = FinishedTrials(PLAN, [row for row in ROWS if (row.method, row.trial) != ("auto", 0)])
    found = trials.differences(["balanced"], {"auto": ("auto", "random")})["auto"]
    ours = trials.curves("balanced", "auto")
    theirs = trials.curves("balanced", "random")[1:]  # trial 0 of auto is missing
    assert found.trials == 3
    assert found.final.value == np.mean(ours[:, -1] - theirs[:, -1])
    assert not found.settled


def test_the_mean_over_scenarios_is_taken_within_each_trial() -> None:
    trials = FinishedTrials(PLAN, ROWS)
    pairs = {"auto": ("auto", "random"), "random": ("random", "random")}
    found = trials.differences(list(GAINS), pairs)
    each = [trials.curves(name, "auto") - trials.curves(name, "random") for name in GAINS]
    of_trials = (each[0] + each[1])[:, -1] / 2
    assert list(found) == ["auto"]
    assert found["auto"].final.value == np.mean(of_trials)
    reach = 3.182446 * of_trials.std(ddof=1) / 2
    np.testing.assert_allclose(
        found["auto"].final.interval, (of_trials.mean() - reach, of_trials.mean() + reach), 1e-6
    )


def test_unequal_budgets_are_said() -> None:
    less = [replace(row, labeled=row.labeled - 5) if row.trial == 1 else row for row in ROWS[:24]]
    (line,) = FinishedTrials(PLAN, [*less, *ROWS[24:]]).problems
    assert line.startswith("scenario balanced: trials have spent different numbers of labels")
    assert "(295 to 300 at the last)" in line
