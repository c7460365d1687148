"""A training run: decode, train, checkpoint; to be left and taken up again at any step."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lloss.annotations import Problems
from lloss.checkpoint import FILE, Checkpoint, load_checkpoint
from lloss.errors import CheckpointError, InterruptedRunError, LabelError
from lloss.examples import load_examples
from lloss.files import explained, sweep, write_text
from lloss.labels import LabeledSet
from lloss.settings import TrainSettings
from lloss.tasks import get_task
from lloss.training import Trainer, TrainingData

METRICS = "metrics.jsonl"
SAMPLE = 64
"""Images kept in the checkpoint, as many as the largest batch that an export is checked at."""

SAMPLE_BYTES = 4 << 20
"""They take no more: a checkpoint is written often."""

CHECKPOINT_SECONDS = 20.0


def train(
    labeled: LabeledSet,
    settings: TrainSettings,
    run: Path,
    *,
    resume: bool = False,
    warm_start: Path | None = None,
    device: str = "",
    problems: Problems | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Checkpoint:
    """Train on a labeled set and leave ``checkpoint.pt`` and ``metrics.jsonl`` in ``run``.

    Args:
        labeled: what to train on.
        settings: how.
        run: the folder; made when it is not there.
        resume: go on with the run that is there (which may be finished, or not begun).
        warm_start: a run whose weights to start from; by default they are fresh.
        device: ``cpu``, ``cuda``, or empty for CUDA where there is one.
        problems: those of reading the labels, and where those of the images go.
        say: told in a line what was left out.

    Raises:
        CheckpointError: a run is there and ``resume`` is off, or it is one of other settings.
        LabelError: the labels cannot be trained on.
        InterruptedRunError: Ctrl-C or SIGTERM; the checkpoint holds the last finished step.
    """
    settings = _sized(settings)
    before = _earlier_run(run, labeled, settings, resume)
    if before is not None and before.finished:
        return before
    problems = problems or Problems()
    data, sample = _decoded(labeled, settings, run, problems)
    for line in problems.lines():
        say(line)
    start = _first_weights(warm_start, data.classes) if warm_start else None
    trainer = Trainer(settings, data, device, start)
    settings = dataclasses.replace(settings, taps=tuple(t.module for t in trainer.model.taps))
    _keep_epochs(run / METRICS, before.epoch if before else 0)
    if before is not None:
        trainer.load_state(before.state)
    with _interruptible() as interrupted:
        _loop(trainer, _Keeper(run, trainer, settings, sample), interrupted)
    return load_checkpoint(run)


def _sized(settings: TrainSettings) -> TrainSettings:
    size = settings.size or get_task(settings.task).defaults(settings.model)["size"]
    return dataclasses.replace(settings, size=size)


def _decoded(
    labeled: LabeledSet, settings: TrainSettings, run: Path, problems: Problems
) -> tuple[TrainingData, NDArray[np.uint8]]:
    """The labeled images to train on, and a few of them as a scorer decodes them."""
    task = get_task(settings.task)
    classes = task.classes(labeled.labels)
    task.check(labeled.labels, classes)
    made = not run.exists()
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, run) from error
    sweep(run)
    try:
        data, rows = load_examples(labeled, classes, settings, problems, room=True, scratch=run)
    except LabelError:
        if made:
            run.rmdir()
        raise
    if data.cut and (line := data.cut.line("labeled", "is not learned")):
        problems.note(line)
    few = max(2, min(SAMPLE, SAMPLE_BYTES // (3 * settings.size**2)))
    plain, _ = load_examples(labeled.take(rows[:few]), classes, settings, problems)
    return data, plain.images


def _first_weights(run: Path, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights of a run, without the layers that speak of other classes."""
    before = load_checkpoint(run)
    weights: dict[str, Tensor] = before.state["model"]
    if before.classes == classes:
        return weights
    prefix = "network."
    own = [name.removeprefix(prefix) for name in weights if name.startswith(prefix)]
    other = {prefix + name for name in get_task(before.settings.task).class_layers(own)}
    return {name: value for name, value in weights.items() if name not in other}


def _earlier_run(
    run: Path, labeled: LabeledSet, settings: TrainSettings, resume: bool
) -> Checkpoint | None:
    if not (run / FILE).exists():
        return None
    if not resume:
        raise CheckpointError(
            f"{run}: holds a training run already; go on with --resume, or choose another -o"
        )
    before = load_checkpoint(run)
    old, new = before.settings.as_dict(), settings.as_dict()
    if not settings.taps:
        new["taps"] = old["taps"]  # chosen by itself then as now
    for name in old:
        if old[name] != new[name]:
            raise CheckpointError(
                f"{run}: was trained with {name} = {old[name]!r}, now it is {new[name]!r}; "
                "resume with the old value, or choose another -o"
            )
    if before.labels_sha256 != labeled.sha256:
        raise CheckpointError(
            f"{run}: was trained on other labels ({before.labeled} images, now {len(labeled)}); "
            "choose another -o"
        )
    return before


class _Keeper:
    """Writes a run's checkpoint and metrics."""

    def __init__(
        self, run: Path, trainer: Trainer, settings: TrainSettings, sample: NDArray[np.uint8]
    ) -> None:
        self.run, self.trainer, self.settings, self.sample = run, trainer, settings, sample
        self.saved = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint of this very step."""
        data = self.trainer.data
        Checkpoint(
            self.settings,
            data.classes,
            len(data.images),
            data.sha256,
            self.sample,
            self.trainer.state(),
        ).save(self.run / FILE)
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        """Write it when the last one is old, so that a killed run loses little."""
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.save()

    def log(self, figures: dict[str, float]) -> None:
        """Append an epoch's figures."""
        path = self.run / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        except OSError as error:
            raise explained(error, path) from error


def _loop(trainer: Trainer, keeper: _Keeper, interrupted: threading.Event) -> None:
    epochs, metric = trainer.settings.epochs, trainer.model.task.metric
    total = epochs * len(trainer.data.images)
    done = trainer.epoch * len(trainer.data.images) + trainer.totals.images
    with tqdm(total=total, initial=done, unit="img", disable=None, desc="train") as bar:
        while not trainer.finished:
            before = trainer.totals.images
            figures = trainer.advance()
            if figures is not None:
                keeper.log(figures)
                shown = {k: v for k, v in figures.items() if k in ("loss", metric)}
                if "ranking_accuracy" in figures:
                    shown["ranking"] = figures["ranking_accuracy"]
                bar.set_description(f"train {trainer.epoch}/{epochs}", refresh=False)
                bar.set_postfix(shown, refresh=False)
                bar.update(len(trainer.data.images) - before)
            else:
                bar.update(trainer.totals.images - before)
            if interrupted.is_set():
                keeper.save()
                raise InterruptedRunError(
                    f"stopped after {trainer.epoch} of {epochs} epochs; {keeper.run / FILE} holds "
                    "the state: run it again with --resume to go on"
                )
            keeper.save_if_due()
    keeper.save()


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let the first Ctrl-C or SIGTERM finish the step; a second one acts as ever."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may set handlers
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, ask)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_epochs(path: Path, epochs: int) -> None:
    """Drop the metrics of epochs that the checkpoint does not hold."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[:epochs]))
