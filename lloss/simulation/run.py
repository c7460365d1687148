"""A whole simulation: every trial of an experiment, in processes, interrupted and continued."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lloss.data.image_overlap import traces
from lloss.errors import InterruptedRunError, SettingsError
from lloss.files import locked
from lloss.simulation.experiment import Experiment
from lloss.simulation.frozen_features import FOLDER, prepare_features
from lloss.simulation.frozen_network import refuse_frozen
from lloss.simulation.full_learner import FullMaker
from lloss.simulation.labeled_data import DataOptions, SimulatedData
from lloss.simulation.maps_features import prepare_maps
from lloss.simulation.processes import Job, LearnerMaker, run_jobs
from lloss.simulation.results import (
    Picks,
    ResultsWriter,
    SimulationError,
    TrialKey,
    fix_settings,
    read_picks,
    read_rows,
)
from lloss.tasks.train_settings import PLAIN, TrainSettings
from lloss.text.counts import counted, part
from lloss.text.first_names import first_names
from lloss.text.progress import progress
from lloss.training.decisions import decide
from lloss.training.pace import in_words

Say = Callable[[str], None]

FROZEN, FULL = "frozen", "full"


def decided_settings(
    data: SimulatedData, settings: TrainSettings, frozen: bool | None, say: Say
) -> tuple[TrainSettings, str]:
    """Decide first weights, input and learner: the same for all trials.

    ``frozen`` None takes a frozen network where there are trained weights.
    Raises ``SettingsError`` where a frozen network cannot be simulated with, and for folds.
    """
    if settings.folds >= 0:
        raise SettingsError("folds: a simulation measures on its test images; leave it out")
    names = [name for name in ("weights", "size", *PLAIN) if name in settings.undecided]
    decided = decide(data.task, settings, data.data)
    for line in decided.lines:
        if any(line.startswith(f"automatic: {name}") for name in names):
            say(line)
    settings = replace(settings, **{name: getattr(decided.settings, name) for name in names})
    if frozen:
        refuse_frozen(settings)
    elif frozen is None:
        frozen = settings.weights != "none"
        why = {
            True: "the network has trained weights: it stays frozen, and heads are trained on its "
            "features (--full trains all of it)",
            False: "all of the network is trained at each cycle",
        }
        say(f"automatic: learner = {FROZEN if frozen else FULL} ({why[frozen]})")
    return settings, FROZEN if frozen else FULL


@dataclass(frozen=True)
class Run:
    """Where and how a simulation runs.

    Attributes:
        out: folder of the results.
        processes: trials at the same time.
        features: folder of cached features; None for one in ``out``.
        device: ``cpu``, ``cuda``, or "" for CUDA where available.
        extend: whether more trials than the folder was planned for are added to it, or refused.
    """

    out: Path
    processes: int
    features: Path | None = None
    device: str = ""
    extend: bool = False

    def simulate(
        self, experiment: Experiment, data: SimulatedData, options: DataOptions, say: Say
    ) -> None:
        """Run what is left to run, and leave a row per cycle in ``results.jsonl``.

        Raises ``SettingsError`` and ``LabelError`` for what cannot be simulated,
        ``SimulationError`` for a folder of another experiment, or in use; ``InterruptedRunError``
        on KeyboardInterrupt, after which the same call continues.
        """
        experiment.check()
        busy = SimulationError(f"{self.out}: another lloss simulate is at work in this folder")
        with locked(self.out, busy):
            if planned := fix_settings(self.out, experiment.as_dict(), self.extend):
                say(_extended(self.out, planned, experiment.trials))
            jobs, done = _jobs(experiment, self.out)
            total = experiment.cycles
            if not jobs:
                say(f"{self.out}: all {total} cycles are done")
                return
            if done:
                say(f"{self.out}: {done} of {total} cycles are done; going on")
            with self._interruptible(experiment):
                say(_overlap(data))
                say(_untested(data))
                maker = self._maker(experiment, data, options, say)
            self._run(experiment, maker, jobs, done, say)

    def _maker(
        self, experiment: Experiment, data: SimulatedData, options: DataOptions, say: Say
    ) -> LearnerMaker:
        if experiment.learner == FULL:
            return FullMaker(options, experiment.settings, self.device)
        folder = self.features or self.out / FOLDER
        classes = experiment.source.classes
        prepare = prepare_maps if classes is None else prepare_features
        return prepare(experiment, data, folder, self.device, say)

    def _run(
        self,
        experiment: Experiment,
        maker: LearnerMaker,
        jobs: Sequence[Job],
        done: int,
        say: Say,
    ) -> None:
        total = experiment.cycles
        writer, seconds = ResultsWriter(self.out), defaultdict[str, list[float]](list)
        methods = {trial.method.name for trial, _ in jobs}
        with (
            self._interruptible(experiment),
            progress(
                desc="cycles", total=total, initial=done, unit="cycles", leave=False,
                smoothing=0,  # methods take unlike times: those of the last few say little
            ) as bar,
        ):  # fmt: skip
            for row, picks in run_jobs(experiment, maker, jobs, self.processes):
                writer.write(row, picks)
                bar.update()
                seconds[row.method].append(sum(row.seconds.values()))
                if len(seconds) == len(methods) and len(seconds[row.method]) == 1:
                    say(_estimate(seconds, jobs, experiment.budget.cycles, self.processes))

    @contextlib.contextmanager
    def _interruptible(self, experiment: Experiment) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            done = len(read_rows(self.out))
            features = "" if experiment.learner == FULL else " and the features computed so far"
            raise InterruptedRunError(
                f"{self.out}: interrupted; {done} of {experiment.cycles} cycles{features} are "
                "kept; run the same command to continue"
            ) from None


def _jobs(experiment: Experiment, out: Path) -> tuple[list[Job], int]:
    """What is left to do: each trial goes on behind its last cycle without a gap."""
    cycles, picks = (
        defaultdict[TrialKey, set[int]](set),
        defaultdict[TrialKey, dict[int, Picks]](dict),
    )
    for row in read_rows(out):
        cycles[row.key].add(row.cycle)
    for each in read_picks(out):
        picks[each.key][each.cycle] = each
    jobs, done = list[Job](), 0
    for trial in experiment.all_trials():
        last = experiment.budget.cycles - 1
        count = 0
        while count in cycles[trial.key] and (count == last or count in picks[trial.key]):
            count += 1
        done += count
        if count <= last:
            jobs.append((trial, [picks[trial.key][cycle] for cycle in range(count)]))
    return jobs, done


def _extended(out: Path, planned: int, trials: int) -> str:
    return (
        f"{out}: {counted(planned, 'trial was', 'trials were')} planned; now {trials}, and the "
        f"report says so; if results are the reason, trust the {trials - planned} added alone"
    )


def _overlap(data: SimulatedData) -> str:
    """Warn of images to measure on that may be trained on too; "" without any."""
    seen = int(np.isin(traces(data.test.items), traces(data.data.items)).sum())
    if not seen:
        return ""
    return (
        f"warning: {data.test.origin}: "
        f"{part(seen, len(data.test), 'images to measure on', 'are')} in "
        f"{data.data.origin} too: figures are higher than on new images"
    )


def _untested(data: SimulatedData) -> str:
    """Warn of classes that no image to measure on shows; "" without any."""
    tested = set(data.task.classes(data.test.labels))
    missing = [name for name in data.names if name not in tested]
    if not missing:
        return ""
    return (
        f"warning: {data.test.origin}: shows no image of {len(missing)} of {len(data.names)} "
        f"classes ({first_names(missing)}): figures, macro accuracy among them, are of the others"
    )


def _estimate(
    seconds: Mapping[str, Sequence[float]], jobs: Sequence[Job], cycles: int, processes: int
) -> str:
    """Say how long the rest takes, by the cycles so far of each method."""
    counts = Counter[str]()
    for trial, done in jobs:
        counts[trial.method.name] += cycles - len(done)
    rest = sum(
        (counts[method] - len(each)) * sum(each) / len(each) for method, each in seconds.items()
    )
    left = counts.total() - sum(map(len, seconds.values()))
    at_once = min(processes, len(jobs))
    at = counted(at_once, "process", "processes")
    return f"{counted(left, 'cycle is', 'cycles are')} left, {in_words(rest / at_once)} in {at}"
