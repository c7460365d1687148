"""Trials in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from lloss.errors import LlossError
from lloss.simulation.experiment import Experiment, Trial
from lloss.simulation.learner import Learner
from lloss.simulation.results import CycleRow, Picks, SimulationError
from lloss.simulation.trial import TrialRun

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Job = tuple[Trial, Sequence[Picks]]
"""A trial, and the picks of its finished cycles."""

Cycle = tuple[CycleRow, Picks | None]

POLL = 0.5  # Seconds between two looks at whether a process died
ENDING = 10.0  # Seconds that a process without jobs may take to end


class LearnerMaker(Protocol):
    """Makes a learner in the process that uses it; travels there."""

    def learner(self) -> Learner:
        """Load what is needed."""


def run_jobs(
    experiment: Experiment, maker: LearnerMaker, jobs: Sequence[Job], processes: int
) -> Iterator[Cycle]:
    """Yield each cycle as it is finished, in whatever order; one process computes in this one."""
    if processes > 1 and len(jobs) > 1:
        yield from _in_processes(experiment, maker, jobs, min(processes, len(jobs)))
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        learner = maker.learner()
        for trial, done in jobs:
            yield from TrialRun(experiment, learner, trial).cycles(done)
    finally:
        torch.set_num_threads(threads)


def _in_processes(
    experiment: Experiment, maker: LearnerMaker, jobs: Sequence[Job], count: int
) -> Iterator[Cycle]:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    waiting, messages = context.Queue(), context.Queue()
    for job in [*jobs, *[None] * count]:
        waiting.put(job)
    arguments = (experiment, maker, waiting, messages)
    workers = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(count)]
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # they are read when a process starts
    try:
        for worker in workers:
            worker.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield from _received(workers, messages)
        for worker in workers:
            worker.join(ENDING)  # its locks are removed as it ends
    finally:
        for worker in workers:
            worker.terminate()
        for channel in (waiting, messages):
            channel.cancel_join_thread()


def _received(workers: Sequence[BaseProcess], messages: Any) -> Iterator[Cycle]:
    working = len(workers)
    while working:
        try:
            kind, content = messages.get(timeout=POLL)
        except queue.Empty:
            if dead := [worker for worker in workers if worker.exitcode]:
                raise SimulationError(
                    f"a process of the simulation ended with {dead[0].exitcode}, perhaps for want "
                    "of memory; run the same command to continue, with a smaller -j"
                ) from None
            continue
        if kind == "cycle":
            yield content
        elif kind == "end":
            working -= 1
        elif kind == "error":
            raise content
        else:
            raise RuntimeError(content)


def _orphaned() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _next(waiting: Any) -> Job | None:
    """Wait for a job; None at the end, and where the parent was killed."""
    while not _orphaned():
        try:
            job: Job | None = waiting.get(timeout=POLL)
            return job
        except queue.Empty:
            continue
    return None


def _work(experiment: Experiment, maker: LearnerMaker, waiting: Any, messages: Any) -> None:
    """Take jobs until there are no more; the parent decides about Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        learner = maker.learner()
        while (job := _next(waiting)) is not None:
            trial, done = job
            for cycle in TrialRun(experiment, learner, trial).cycles(done):
                if _orphaned():
                    messages.cancel_join_thread()  # nobody reads them any more
                    return
                messages.put(("cycle", cycle))
    except LlossError as error:
        messages.put(("error", error))
    except Exception:
        messages.put(("traceback", traceback.format_exc()))
    messages.put(("end", None))
