"""What a simulation fixed before its first trial, as a report reads it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lloss.simulation.results import EXTENDED, SETTINGS, SimulationError, read_settings


@dataclass(frozen=True)
class Plan:
    """The experiment: who is compared with whom, by what, and over how many trials."""

    metrics: Mapping[str, str]  # of each scenario, the figure that decides; greater is better
    methods: Sequence[str]
    trials: Mapping[str, int]  # planned of each method in each scenario
    cycles: int  # trainings, the first on the initial labels
    reference: str = ""  # the method that the others are held against; "" for none
    default: str = ""  # the method that is held against each other one; "" for none
    settings: Mapping[str, Any] | None = None  # the whole file
    extended: Sequence[int] = ()  # the trials that were planned before each time some were added
    abbreviation: str = ""  # how the task's metric is written: mAP for map; "" for as it is

    @property
    def scenarios(self) -> list[str]:
        """Names of the scenarios, in order."""
        return list(self.metrics)

    @property
    def metric(self) -> str:
        """The metric for people, or all of them where scenarios differ."""
        return " or ".join(dict.fromkeys(map(self.shown_metric, self.metrics)))

    def shown_metric(self, scenario: str) -> str:
        """The metric of a scenario for people."""
        metric = self.metrics[scenario]
        return self.abbreviation if self.abbreviation.lower() == metric else metric

    @property
    def most_trials(self) -> int:
        """Trials of the methods that have most of them."""
        return max(self.trials.values())

    @property
    def budget(self) -> str:
        """The labels of all cycles, in words: ``100 + 5 × 100 labels``; "" where unknown."""
        initial, k = ((self.settings or {}).get(name) for name in ("initial", "k"))
        if not isinstance(initial, int) or not isinstance(k, int):
            return ""
        return f"{initial:,} + {self.cycles - 1} × {k:,} labels"

    def facts(self) -> dict[str, str]:
        """The settings that are plain values, by name, for the foot of a report."""
        return {
            name.replace("_", " "): str(value)
            for name, value in (self.settings or {}).items()
            if isinstance(value, (str, int, float)) and value != ""
        }


def read_plan(out: Path) -> Plan:
    """Read ``settings.json`` of a simulation's folder; SimulationError where it lacks something."""
    settings = read_settings(out)
    try:
        methods, scenarios = list(settings["methods"]), list(settings["scenarios"])
        metrics, trials = settings.get("metrics") or {}, settings["trials"]
        if not methods or not scenarios:
            raise ValueError("nothing is compared")
        return Plan(
            metrics={name: str(metrics.get(name) or settings["metric"]) for name in scenarios},
            methods=methods,
            trials={
                method: int(trials[method] if isinstance(trials, dict) else trials)
                for method in methods
            },
            cycles=int(settings["cycles"]),
            reference=_among(methods, settings.get("reference")),
            default=_among(methods, settings.get("default")),
            settings=settings,
            extended=_counts(settings.get(EXTENDED, ()), settings["trials"]),
            abbreviation=_abbreviation(str(settings.get("metric_title", ""))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SimulationError(
            f"{out / SETTINGS}: is damaged ({error}); simulate again into another folder"
        ) from error


def _among(methods: Sequence[str], name: Any) -> str:
    return name if name in methods else ""


def _counts(extended: Sequence[int], trials: Any) -> Sequence[int]:
    """The numbers of trials that were planned one after the other, without the last."""
    counts = [0, *extended, trials]
    if extended and any(one >= two for one, two in itertools.pairwise(counts)):
        raise ValueError(f"{EXTENDED} = {extended}")
    return extended


def _abbreviation(title: str) -> str:
    return "" if title.istitle() else title
