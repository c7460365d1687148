"""Methods of a simulation compared over its paired trials: every figure that a report shows.

The metric, the methods, the scenarios and the number of trials are those of ``settings.json``,
written before the first trial. Only trials that finished all cycles count; where fewer finished
than planned, :attr:`Comparison.complete` is false, and no report names a winner: a run that is
looked at until it pleases proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lloss.simulation.finished_trials import FinishedTrials
from lloss.simulation.measured import NOTHING, Difference, Measured, measured, number
from lloss.simulation.plan import Plan, read_plan
from lloss.simulation.results import CycleRow, read_rows
from lloss.statistics.paired_trials import (
    Reached,
    labels_to_reach,
    mean_after_first,
    median_reached,
)

COUNTED, RATIOS = ("rare",), ("lift",)
"""Names in a row's ``picks`` that are counts, or ratios of two means; the others are shares."""


@dataclass(frozen=True)
class Choices:
    """How often a method decided on one strategy, over all cycles of all trials."""

    decided: str
    count: int
    reason: str  # of one of them; "" where none was given


@dataclass(frozen=True)
class Reach:
    """The labels with which a method reaches the reference's final metric."""

    mean: Reached  # of the mean curves
    median: Reached  # of the trials, each by its own reference
    trials: int
    reaching: int  # trials that reach it


@dataclass(frozen=True)
class MethodResult:
    """One method in one scenario."""

    method: str
    planned: int  # trials
    finished: int
    labels: NDArray[np.float64]  # spent until each cycle, mean over trials [C]
    curve: Sequence[Measured]  # the metric at each cycle [C], or empty without a finished trial
    later: Measured  # the metric in the mean of the cycles after the first
    figures: Mapping[str, Measured]  # the other figures at the last cycle, by name
    picks: Mapping[str, Measured]  # shares in the mean of cycles, counts as their sum
    head: Measured  # ranking accuracy of the predicted loss, in the mean of cycles
    entropy: Measured  # likewise
    seconds: Mapping[str, float]  # by stage, the mean of the cycles that have it
    choices: Sequence[Choices]
    gain: Difference | None = None  # over the reference
    lead: Difference | None = None  # of the default method over this one
    reach: Reach | None = None

    @property
    def final(self) -> Measured:
        """The metric at the last cycle."""
        return self.curve[-1] if self.curve else NOTHING


@dataclass(frozen=True)
class ScenarioResult:
    """All methods in one scenario, in the order of the settings."""

    name: str
    metric: str  # for people
    methods: Sequence[MethodResult]
    highest: str  # the method with the highest final metric, over its finished trials
    level: Sequence[str]  # the methods that are not clearly below it

    def of(self, method: str) -> MethodResult:
        """The result of a method."""
        return next(result for result in self.methods if result.method == method)


@dataclass(frozen=True)
class Comparison:
    """A whole simulation."""

    plan: Plan
    scenarios: Sequence[ScenarioResult]
    # Over the reference, and of the default over each method, in the mean of several scenarios
    gains: Mapping[str, Difference] = field(default_factory=dict)
    leads: Mapping[str, Difference] = field(default_factory=dict)
    problems: Sequence[str] = ()  # rows that were left out, in words
    added: Comparison | None = None  # of the trials that were added last, if some were

    @property
    def planned(self) -> int:
        """Trials of all methods in all scenarios."""
        return sum(result.planned for each in self.scenarios for result in each.methods)

    @property
    def finished(self) -> int:
        """Those that have all their cycles."""
        return sum(result.finished for each in self.scenarios for result in each.methods)

    @property
    def complete(self) -> bool:
        """Whether all planned trials are finished."""
        return self.finished == self.planned


def compare(out: Path) -> Comparison:
    """Compare the methods of a simulation's folder; SimulationError where it cannot be read."""
    return compare_rows(read_plan(out), read_rows(out))


def compare_rows(plan: Plan, rows: Iterable[CycleRow]) -> Comparison:
    """Compare the methods of a plan by the rows of their trials."""
    compared = _compare(plan, rows := list(rows))
    if not plan.extended:
        return compared
    planned = plan.extended[-1]
    plan = replace(plan, trials={name: count - planned for name, count in plan.trials.items()})
    rows = [replace(row, trial=row.trial - planned) for row in rows if row.trial >= planned]
    return replace(compared, added=_compare(plan, rows))


def _compare(plan: Plan, rows: Iterable[CycleRow]) -> Comparison:
    trials = FinishedTrials(plan, rows)
    scenarios = [_scenario(trials, name) for name in plan.scenarios]
    over_all = len(scenarios) > 1
    gains = trials.differences(plan.scenarios, _gains(plan)) if over_all else {}
    leads = trials.differences(plan.scenarios, _leads(plan)) if over_all else {}
    return Comparison(plan, scenarios, gains, leads, trials.problems)


def _gains(plan: Plan) -> dict[str, tuple[str, str]]:
    return {method: (method, plan.reference) for method in plan.methods if plan.reference}


def _leads(plan: Plan) -> dict[str, tuple[str, str]]:
    return {method: (plan.default, method) for method in plan.methods if plan.default}


def _scenario(trials: FinishedTrials, name: str) -> ScenarioResult:
    plan = trials.plan
    gains = trials.differences([name], _gains(plan))
    leads = trials.differences([name], _leads(plan))
    results = [_method(trials, name, method, gains, leads) for method in plan.methods]
    finished = [result for result in results if result.finished]
    highest = max(finished, key=lambda result: result.final.value).method if finished else ""
    below = trials.differences([name], {each.method: (highest, each.method) for each in finished})
    level = [method for method, difference in below.items() if difference.sign < 1]
    return ScenarioResult(name, plan.shown_metric(name), results, highest, level)


def _method(
    trials: FinishedTrials,
    scenario: str,
    method: str,
    gains: Mapping[str, Difference],
    leads: Mapping[str, Difference],
) -> MethodResult:
    plan, runs = trials.plan, trials.of(scenario, method)
    curves = trials.curves(scenario, method)
    rows = [row for run in runs for row in run]
    ends = [run[-1].figures for run in runs]
    return MethodResult(
        method=method,
        planned=plan.trials[method],
        finished=len(runs),
        labels=trials.labels(scenario, method).mean(0) if runs else np.empty(0),
        curve=[measured(cycle) for cycle in curves.T] if runs else [],
        later=measured(map(mean_after_first, curves)),
        figures={
            figure: measured(end.get(figure) for end in ends)
            for figure in names_of(ends)
            if figure != plan.metrics[scenario]
        },
        picks={
            pick: measured(_of_picks(run, pick) for run in runs)
            for pick in names_of(row.picks for row in rows)
        },
        head=measured(_ranking(row.head for row in run) for run in runs),
        entropy=measured(_ranking(row.entropy for row in run) for run in runs),
        seconds={
            stage: measured(row.seconds.get(stage) for row in rows).value
            for stage in names_of(row.seconds for row in rows)
        },
        choices=_choices(row.choice for row in rows if row.choice),
        gain=gains.get(method),
        lead=leads.get(method),
        reach=_reach(trials, scenario, method),
    )


def names_of(tables: Iterable[Mapping[str, object]]) -> list[str]:
    """The names in any of the tables, each once."""
    return list(dict.fromkeys(name for table in tables for name in table))


def _of_picks(run: Sequence[CycleRow], name: str) -> float | None:
    """A trial's picks: shares in the mean of the cycles that picked, counts in their sum."""
    values = [x for row in run if (x := number(row.picks.get(name))) is not None]
    if not values:
        return None
    return sum(values) if name in COUNTED else sum(values) / len(values)


def _ranking(cycles: Iterable[Mapping[str, float] | None]) -> float | None:
    found = (number(each.get("ranking_accuracy")) for each in cycles if each)
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if values else None


def _choices(texts: Iterable[str]) -> list[Choices]:
    """What is before the first colon is the decision, what follows its reason."""
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for text in texts:
        decided, _, reason = text.partition(": ")
        counts[decided] += 1
        reasons.setdefault(decided, reason)
    return [Choices(decided, count, reasons[decided]) for decided, count in counts.most_common()]


def _reach(trials: FinishedTrials, scenario: str, method: str) -> Reach | None:
    reference = trials.plan.reference
    if not reference or method == reference:
        return None
    common = trials.common([scenario], (method, reference))
    if not common:
        return None
    labels = trials.labels(scenario, method, common)
    curves = trials.curves(scenario, method, common)
    ends = trials.curves(scenario, reference, common)[:, -1]
    each = [labels_to_reach(*trial) for trial in zip(labels, curves, ends, strict=True)]
    return Reach(
        mean=labels_to_reach(labels.mean(0), curves.mean(0), float(ends.mean())),
        median=median_reached(each),
        trials=len(each),
        reaching=sum(not reached.censored for reached in each),
    )
