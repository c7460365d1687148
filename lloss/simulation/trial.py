"""One trial: train, measure, score, select, as often as the budget says."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.scores.score_source import TableScores
from lloss.scores.scores_folder import scores_table
from lloss.selection import select
from lloss.selection.automatic import Evidence, Round, automatic_choice, recent_lift
from lloss.selection.selection import PREDICTION
from lloss.simulation.experiment import Experiment, Trial
from lloss.simulation.learner import Learner, Model, shown_figures
from lloss.simulation.methods import AUTO, TOD
from lloss.simulation.results import CycleRow, Picks
from lloss.simulation.scenarios import TrialPool
from lloss.statistics.disagreement import output_discrepancy
from lloss.statistics.lift import lift_of, standard_error
from lloss.tasks import get_task
from lloss.training.training_data import seed_of

MONITORED = 200
"""Random images, at most, that the picks of ``auto`` are compared with."""


@dataclass(frozen=True)
class _Picked:
    rows: list[int]  # of the pool, in the order picked
    choice: str
    lift: Round | None  # of auto
    weighted: bool


class TrialRun:
    """The state of a trial between cycles."""

    def __init__(self, experiment: Experiment, learner: Learner, trial: Trial) -> None:
        self.experiment, self.learner, self.trial = experiment, learner, trial
        self.pool: TrialPool = experiment.pool(trial.scenario, trial.number)
        self.labeled: list[int] = experiment.first(self.pool, trial.number).tolist()
        self.seed = experiment.trial_seed(trial.number)
        self._rows = {id: row for row, id in enumerate(self.pool.ids)}
        self._before: NDArray[np.float32] | None = None
        self._rounds: list[Round | None] = []  # what was measured of the picks of each cycle

    def cycles(self, done: Sequence[Picks]) -> Iterator[tuple[CycleRow, Picks | None]]:
        """Run the cycles that follow those whose picks are given; nothing is scored at the end."""
        self.learner.open(self.pool)
        for picks in done:
            if picks.cycle + 1 == len(done) and TOD in self.trial.method.columns:
                self._before = self._train().outputs()  # of the model before the interruption
            self._add(picks)
        for cycle in range(len(done), self.experiment.budget.cycles):
            yield self._cycle(cycle)

    def _cycle(self, cycle: int) -> tuple[CycleRow, Picks | None]:
        clock = _Clock()
        model = self._train()
        clock.stop("train")
        found = model.measure()
        clock.stop("measure")
        task = get_task(self.experiment.settings.task)
        known = [self.pool.labels[row] for row in self._usable()]
        metric = self.trial.scenario.metric(self.experiment.source)
        counts = Counter(name for label in known for name in set(task.names(label)))
        row = CycleRow(
            *self.trial.key,
            cycle,
            len(self.labeled),
            shown_figures(found.figures, metric, self.pool.watched, counts),
            found.head,
            found.entropy,
        )
        picks = None
        if cycle + 1 < self.experiment.budget.cycles:
            picked = self._pick(model, cycle, clock)
            shares = self._described(picked.rows)
            if picked.lift is not None:
                shares["lift"] = picked.lift[0]
            row = dataclasses.replace(row, picks=shares, choice=picked.choice)
            ids = tuple(self.pool.ids[each] for each in picked.rows)
            picks = Picks(*self.trial.key, cycle, ids, picked.lift if picked.weighted else None)
            self._add(picks)
        return dataclasses.replace(row, seconds=clock.seconds), picks

    def _add(self, picks: Picks) -> None:
        self.labeled += [self._rows[id] for id in picks.ids]
        self._rounds.append(picks.lift)

    def _usable(self) -> list[int]:
        """The labeled rows that show something to train on."""
        return [row for row in self.labeled if not self.pool.junk[row]]

    def _train(self) -> Model:
        rows = self._usable()
        labels = [self.pool.labels[row] for row in rows]
        return self.learner.train(np.array(rows), labels, self.trial.method, self.seed)

    def _pick(self, model: Model, cycle: int, clock: _Clock) -> _Picked:
        method, choice = self.trial.method, self.trial.method.choice
        automatic = method.strategy == AUTO
        if automatic:
            decided = automatic_choice(self._evidence(model))
            method = dataclasses.replace(method, strategy=decided.strategy, by=decided.by)
            choice = f"{method.choice}: {decided.reason}"
        columns = {} if method.blind else model.columns(method.columns)
        if self.trial.method.strategy == AUTO and PREDICTION not in columns:
            method = dataclasses.replace(method, class_weight="")  # as a new project of the task
        if TOD in method.columns:
            now = model.outputs()
            # Before the second cycle there is nothing to compare with: entropy decides.
            columns[TOD] = columns["entropy"] if self._before is None else _tod(now, self._before)
            self._before = now
        table = TableScores(scores_table(self.pool.ids, columns))
        clock.stop("score")
        taken = {self.pool.ids[row] for row in self.labeled}
        unlabeled = len(self.pool.ids) - len(taken)
        how = method.selection(self.experiment.budget.k, unlabeled, seed_of(self.seed, cycle))
        rows = [self._rows[id] for id in select(table, how, taken).ids]
        found = self._lift(model, rows, cycle) if automatic else None
        clock.stop("select")
        return _Picked(rows, choice, found, weighted=bool(method.by))

    def _evidence(self, model: Model) -> Evidence:
        """What is known of the scores; nothing is measured where images are drawn all the same."""
        labeled, least = len(self._usable()), get_task(self.experiment.settings.task).chooses_from
        if labeled < least:
            return Evidence(labeled=labeled, least=least)
        lift: dict[str, Any] = recent_lift(reversed(self._rounds))
        return dataclasses.replace(model.evidence(), least=least, **lift)

    def _lift(self, model: Model, picked: Sequence[int], cycle: int) -> Round | None:
        """Compare picks with random unlabeled images, as a project that monitors does."""
        random = np.random.default_rng([self.seed, 6, cycle])
        unlabeled = np.setdiff1d(np.arange(len(self.pool.ids)), self.labeled)
        losses = self._losses(model, picked)
        beside = self._losses(model, random.permutation(unlabeled)[:MONITORED].tolist())
        if not len(beside):
            return None
        found = lift_of(losses, float(beside.mean()), standard_error(beside))
        return (found.value, len(losses)) if found else None

    def _losses(self, model: Model, rows: Sequence[int]) -> NDArray[np.float32]:
        """Measure those of rows that have a label, of classes that the model knows."""
        task, labels = get_task(self.experiment.settings.task), self.pool.labels
        junk = self.pool.junk
        classes = task.classes([labels[row] for row in self._usable()])
        some = [row for row in rows if not junk[row] and task.has_loss(labels[row], classes)]
        if not some:
            return np.empty(0, np.float32)
        return model.losses(np.array(some, np.int64), [labels[row] for row in some])

    def _described(self, picked: Sequence[int]) -> dict[str, float]:
        """Count what is wasted among the picks, and what is rare."""
        pool, count = self.pool, len(picked)
        seen = {int(pool.rows[row]) for row in self.labeled}
        duplicates = 0
        for row in picked:
            duplicates += int(pool.rows[row]) in seen
            seen.add(int(pool.rows[row]))
        shares: dict[str, float] = {
            "duplicates": duplicates / count,
            "junk": float(pool.junk[list(picked)].mean()),
        }
        if pool.watched:
            task = get_task(self.experiment.settings.task)
            labels: list[Any] = [pool.labels[row] for row in picked]
            shares["rare"] = float(sum(pool.watched in task.names(label) for label in labels))
        return shares


def _tod(now: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = output_discrepancy(now, before).astype(np.float32)
    return found


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def stop(self, stage: str) -> None:
        """End a stage; the next one begins."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._since, 4)
        self._since = now
