"""An experiment: fully labeled data, a budget, and what is compared at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lloss
from lloss.errors import LabelError, LlossError, SettingsError
from lloss.files import sha256_of
from lloss.simulation.methods import AUTO, Method
from lloss.simulation.scenarios import Scenario, Source, TrialPool
from lloss.tasks import get_task
from lloss.tasks.train_settings import AUTOMATIC, NAMED_WEIGHTS, TrainSettings
from lloss.training.training_data import seed_of

FORMAT = 2  # Of settings.json; another one where the trials of some method change

JUDGED = (AUTO, "herding")
"""The methods that are judged against the others, the first that is there: what cycles do."""


def weights_digest(weights: str) -> str:
    """Digest the file of first weights; "" for published ones, whose names stand for them.

    ``SettingsError`` where it is missing.
    """
    if weights in (*NAMED_WEIGHTS, AUTOMATIC["weights"]):
        return ""
    try:
        return sha256_of(Path(weights))
    except OSError as error:
        raise SettingsError(f"weights {weights}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Budget:
    """How much is labeled.

    Attributes:
        initial: labels of the first set, drawn at random by the trial's seed.
        k: labels added a cycle.
        cycles: trainings in all, the first on the initial set.
    """

    initial: int
    k: int
    cycles: int

    def __post_init__(self) -> None:
        for name, least in (("initial", 2), ("k", 1), ("cycles", 2)):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} = {getattr(self, name)}: must be {least} or more")

    @property
    def total(self) -> int:
        """Labels at the last training."""
        return self.initial + (self.cycles - 1) * self.k


@dataclass(frozen=True)
class Trial:
    """One run of one method: what a process takes at a time."""

    scenario: Scenario
    method: Method
    number: int

    @property
    def key(self) -> tuple[str, str, int]:
        """As in the rows of results."""
        return self.scenario.name, self.method.name, self.number


@dataclass(frozen=True)
class Experiment:
    """What is simulated, in every particular.

    Attributes:
        source: the data that pools are drawn of.
        settings: of training; methods change some of them.
        scenarios: of pools.
        methods: to compare.
        budget: of labels.
        trials: of each method in each scenario.
        pool_size: images of a pool; 0 for as many as there are.
        seed: of everything.
        learner: ``frozen`` or ``full``.
        described: what the user gave, for ``settings.json``.
    """

    source: Source
    settings: TrainSettings
    scenarios: Sequence[Scenario]
    methods: Sequence[Method]
    budget: Budget
    trials: int
    pool_size: int
    seed: int
    learner: str
    described: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot be simulated, before anything is computed.

        Raises ``SettingsError`` for a budget beyond a pool, or a scenario that does not fit, and
        ``LabelError`` for initial labels that nothing can be learned from.
        """
        task = get_task(self.settings.task)
        for method in self.methods:
            method.check(self.learner == "frozen")
        for scenario in self.scenarios:
            scenario.check(self.source, task.name)
            for trial in range(self.trials):
                pool = self.pool(scenario, trial)
                if self.budget.total > len(pool.ids):
                    raise SettingsError(
                        f"scenario {scenario.name!r}: {self.budget.initial} + "
                        f"{self.budget.cycles - 1} × {self.budget.k} labels are more than the "
                        f"{len(pool.ids)} images of the pool; lower --initial, -k or --cycles"
                    )
                labels = [pool.labels[row] for row in self.first(pool, trial) if not pool.junk[row]]
                try:
                    task.check(labels, task.classes(labels))
                except LlossError as error:
                    raise LabelError(
                        f"scenario {scenario.name!r}, trial {trial}: the {self.budget.initial} "
                        f"initial labels teach nothing ({error}); raise --initial"
                    ) from error

    def all_trials(self) -> list[Trial]:
        """All trials; those that are compared with each other follow each other."""
        return [
            Trial(scenario, method, number)
            for number in range(self.trials)
            for scenario in self.scenarios
            for method in self.methods
        ]

    @property
    def cycles(self) -> int:
        """Trainings in all."""
        return len(self.all_trials()) * self.budget.cycles

    def trial_seed(self, trial: int) -> int:
        """Return the seed that decides everything random in a trial."""
        return seed_of(self.seed, trial)

    def pool(self, scenario: Scenario, trial: int) -> TrialPool:
        """Draw the pool of a trial, the same for all methods."""
        seed = self.trial_seed(trial)
        return scenario.draw(self.source, self.pool_size, seed, seed_of(self.seed))

    def first(self, pool: TrialPool, trial: int) -> NDArray[np.int64]:
        """Draw the rows of the initial labels, the same for all methods."""
        random = np.random.default_rng([self.trial_seed(trial), 4])
        return np.sort(random.permutation(len(pool.ids))[: self.budget.initial])

    def as_dict(self) -> dict[str, Any]:
        """Return what ``settings.json`` holds."""
        task = get_task(self.settings.task)
        names = [method.name for method in self.methods]
        metrics = {each.name: each.metric(self.source) for each in self.scenarios}
        return {
            "format": FORMAT,
            "version": lloss.__version__,
            **self.described,
            "task": task.name,
            "metric_title": task.metric_title,
            "model": self.settings.model,
            "weights_sha256": weights_digest(self.settings.weights),
            "learner": self.learner,
            "images": len(self.source),
            "scenarios": list(metrics),
            "methods": names,
            "reference": "random" if "random" in names else "",
            "default": next((name for name in JUDGED if name in names), ""),
            "trials": self.trials,
            "metric": next(iter(metrics.values())),
            "metrics": metrics,
            "pool_size": self.pool_size,
            "initial": self.budget.initial,
            "k": self.budget.k,
            "cycles": self.budget.cycles,
            "seed": self.seed,
            "method_settings": {method.name: method.as_dict() for method in self.methods},
            "train": self.settings.as_dict(),
        }
