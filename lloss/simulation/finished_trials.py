"""The trials of a simulation that finished, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lloss.simulation.measured import Difference, differences, number
from lloss.simulation.plan import Plan
from lloss.simulation.results import CycleRow


class FinishedTrials:
    """Rows by scenario, method and trial, of the trials that have the metric at all cycles.

    ``problems`` says in words what was left out.
    """

    def __init__(self, plan: Plan, rows: Iterable[CycleRow]) -> None:
        self.plan = plan
        found: dict[tuple[str, str], dict[int, dict[int, CycleRow]]] = {
            (scenario, method): {} for scenario in plan.scenarios for method in plan.methods
        }
        unplanned = 0
        for row in rows:
            trials = found.get((row.scenario, row.method))
            known = trials is not None and row.trial < plan.trials[row.method]
            if trials is None or not known or row.cycle >= plan.cycles:
                unplanned += 1
            else:
                trials.setdefault(row.trial, {})[row.cycle] = row
        self._rows = {key: self._whole(key[0], trials) for key, trials in found.items()}
        begun, used = (sum(map(len, each.values())) for each in (found, self._rows))
        counts = {
            "rows of methods, scenarios, trials or cycles that were not planned": unplanned,
            f"trials that have not finished or lack {plan.metric} at some cycle": begun - used,
        }
        self.problems = [f"left out, {what}: {count:,}" for what, count in counts.items() if count]
        self.problems += [line for name in plan.scenarios if (line := self._uneven(name))]

    def _whole(
        self, scenario: str, trials: dict[int, dict[int, CycleRow]]
    ) -> dict[int, list[CycleRow]]:
        metric, cycles = self.plan.metrics[scenario], range(self.plan.cycles)
        return {
            trial: [found[cycle] for cycle in cycles]
            for trial, found in sorted(trials.items())
            if all(
                cycle in found and number(found[cycle].figures.get(metric)) is not None
                for cycle in cycles
            )
        }

    def _uneven(self, scenario: str) -> str:
        """A line where the cycles of a scenario are not of equal budget; "" where they are."""
        spent = {
            tuple(row.labeled for row in run)
            for method in self.plan.methods
            for run in self.of(scenario, method)
        }
        if len(spent) < 2:
            return ""
        least, most = min(each[-1] for each in spent), max(each[-1] for each in spent)
        return (
            f"scenario {scenario}: trials have spent different numbers of labels at the same "
            f"cycle ({least:,} to {most:,} at the last); they are compared cycle by cycle all the "
            "same"
        )

    @property
    def complete(self) -> bool:
        """Whether all planned trials are finished."""
        return all(len(runs) == self.plan.trials[key[1]] for key, runs in self._rows.items())

    def of(self, scenario: str, method: str) -> list[list[CycleRow]]:
        """The rows of each trial, in the order of cycles."""
        return list(self._rows[scenario, method].values())

    def common(self, scenarios: Iterable[str], methods: Iterable[str]) -> list[int]:
        """Numbers of the trials that all these methods finished in all these scenarios."""
        methods = list(methods)
        found = [set(self._rows[scenario, method]) for scenario in scenarios for method in methods]
        return sorted(set.intersection(*found))

    def curves(
        self, scenario: str, method: str, trials: Iterable[int] | None = None
    ) -> NDArray[np.float64]:
        """The metric of all trials, or of some: float64 [T, C]."""
        metric = self.plan.metrics[scenario]
        return self._columns(scenario, method, trials, lambda row: row.figures[metric])

    def labels(
        self, scenario: str, method: str, trials: Iterable[int] | None = None
    ) -> NDArray[np.float64]:
        """The labels spent until each cycle: float64 [T, C]."""
        return self._columns(scenario, method, trials, lambda row: row.labeled)

    def _columns(
        self,
        scenario: str,
        method: str,
        trials: Iterable[int] | None,
        figure: Callable[[CycleRow], float],
    ) -> NDArray[np.float64]:
        runs = self._rows[scenario, method]
        chosen = runs if trials is None else trials
        table = [[figure(row) for row in runs[trial]] for trial in chosen]
        return np.array(table, np.float64).reshape(-1, self.plan.cycles)

    def differences(
        self, scenarios: Sequence[str], pairs: Mapping[str, tuple[str, str]]
    ) -> dict[str, Difference]:
        """The difference of each pair of methods in the mean of some scenarios, by the pair's name.

        A trial's difference is the mean over the scenarios, of trials that both methods finished in
        all of them: what a trial draws, such as its first labels, may be common to its scenarios,
        so that these are not independent of each other, but trials are. A pair without such a trial
        has none.
        """
        found = {}
        for name, (one, other) in pairs.items():
            if one == other or not (trials := self.common(scenarios, (one, other))):
                continue
            found[name] = np.mean(
                [self.curves(each, one, trials) - self.curves(each, other, trials)
                 for each in scenarios],
                axis=0,
            )  # fmt: skip
        return differences(found, self.complete)
