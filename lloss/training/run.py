"""A training run: decode, train, checkpoint; interrupted and resumed at any step."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.image_overlap import traces
from lloss.data.labeled_set import LabeledSet
from lloss.errors import (
    CheckpointError,
    DivergedError,
    InterruptedRunError,
    LabelError,
    SettingsError,
)
from lloss.files import locked, sweep, write_error, write_text
from lloss.modeling.network import TappedNetwork
from lloss.tasks import get_task
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.first_names import first_names
from lloss.text.progress import progress
from lloss.training.checkpoint import FILE, Checkpoint, load_checkpoint
from lloss.training.decisions import decide
from lloss.training.divergence import doubts, few_steps_note
from lloss.training.frozen import settings_of_frozen, train_frozen
from lloss.training.pace import Pace
from lloss.training.trainer import Trainer, finished_state
from lloss.training.training_data import TrainingData, load_examples
from lloss.training.warm_start import take_weights

METRICS = "metrics.jsonl"
SAMPLE = 64
"""Images kept in the checkpoint, as many as the largest batch that an export is checked at."""

SAMPLE_BYTES = 4 << 20  # They take no more: a checkpoint is written often

CHECKPOINT_SECONDS = 60.0  # between two: a large one takes seconds to write

Observe: TypeAlias = Callable[[], dict[str, float]]


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

    ``resume`` continues the run in the folder, which may be finished, or not begun; ``warm_start``
    is a run whose weights to start from instead of fresh ones. ``problems`` are of labels and
    images, and doubts about the network; ``say`` receives a line on each thing left out.

    Raises ``CheckpointError`` for a run that is there, at work or of other settings,
    ``LabelError``, ``DivergedError`` (the checkpoint before stays), or ``InterruptedRunError`` on
    Ctrl-C.
    """
    with training_folder(run):
        return _train(
            labeled, settings, run, resume, warm_start, device, problems or Problems(), say
        )


def training_folder(run: Path) -> contextlib.AbstractContextManager[None]:
    """Make the folder of a run, for this process alone."""
    busy = CheckpointError(f"{run}: another training is at work in this folder; wait for it")
    return locked(run, busy)


def _train(
    labeled: LabeledSet,
    settings: TrainSettings,
    run: Path,
    resume: bool,
    warm_start: Path | None,
    device: str,
    problems: Problems,
    say: Callable[[str], None],
) -> Checkpoint:
    task = get_task(settings.task)
    if settings.freeze and warm_start:
        raise SettingsError("freeze: the network is that of --weights; leave the warm start out")
    settings = settings_of_frozen(settings) if settings.freeze else settings
    labeled = _with_loss(task, labeled.ordered(), problems)
    start = load_checkpoint(warm_start) if warm_start else None
    start_sha256 = start.sha256 if start else ""
    before = earlier_run(run, settings, labeled.sha256, len(labeled), start_sha256, resume)
    if before is not None:
        settings = settings.filled_from(before.settings)
    else:
        decided = decide(task, settings, labeled, start.settings if start else None)
        settings = decided.settings
        for line in decided.lines:
            say(line)
    data, sample = _decoded(task, labeled, settings, run, problems)
    for line in problems.lines():
        say(line)

    images = _pixels_sha256(data.images)
    if before is not None and before.images_sha256 != images:
        raise CheckpointError(
            f"{run}: was trained on other images of the same names (their pixels changed); "
            "restore them, or train in another folder"
        )
    if before is not None and before.finished:
        _note_doubts(run, settings, problems, say)
        return before
    own = traces(labeled.items)
    checkpoint = Checkpoint(
        settings,
        data.classes,
        len(data.images),
        data.sha256,
        sample.images,
        images,
        start_sha256,
        np.append(start.traces, own) if start else own,
        {},
    )
    if settings.freeze:
        return _freeze(run, checkpoint, data, device, say)
    trainer = Trainer(settings, data, device)
    if before is not None:
        trainer.load_state(before.state)
    elif start is not None:
        say(take_weights(trainer.model, start, settings, data.classes))
    elif trainer.model.start is not None:
        say(trainer.model.start.line)
    if note := few_steps_note(trainer.model, settings.epochs * trainer.steps):
        problems.note(note)
        say(note)
    done = continue_run(run, trainer, checkpoint, say=say)
    _note_doubts(run, settings, problems, say)
    return done


def _freeze(
    run: Path, checkpoint: Checkpoint, data: TrainingData, device: str, say: Callable[[str], None]
) -> Checkpoint:
    """Train the head alone, and write it as a run that is finished."""
    fitted = train_frozen(checkpoint.settings, data, device)
    for line in fitted.lines:
        say(line)
    write_text(run / METRICS, json.dumps({"epoch": 1, "loss": fitted.head.mean_loss}) + "\n")
    dataclasses.replace(
        checkpoint,
        settings=_with_taps(checkpoint.settings, fitted.network),
        state=finished_state(fitted.network),
    ).save(run / FILE)
    return load_checkpoint(run)


def _with_taps(settings: TrainSettings, network: TappedNetwork) -> TrainSettings:
    return dataclasses.replace(settings, taps=tuple(tap.module for tap in network.taps))


def continue_run(
    run: Path,
    trainer: Trainer,
    checkpoint: Checkpoint,
    observe: Observe = dict,
    say: Callable[[str], None] = lambda _: None,
) -> Checkpoint:
    """Train to the end, and leave the checkpoint and the figures of each epoch in the folder.

    ``checkpoint`` lacks the taps and the trainer's state; see :func:`train_epochs` for ``observe``.
    """
    _keep_epochs(run / METRICS, trainer.epoch)
    settings = _with_taps(checkpoint.settings, trainer.model)
    writer = RunWriter(run, trainer, dataclasses.replace(checkpoint, settings=settings))
    with _interruptible() as interrupted:
        try:
            train_epochs(trainer, observe, writer, interrupted, say)
        except DivergedError as error:
            kept = "No checkpoint was written"
            if (run / FILE).exists():
                kept = f"{run / FILE} keeps a state before that"
            raise DivergedError(f"{error}. {kept}") from None
    return load_checkpoint(run)


def _note_doubts(
    run: Path, settings: TrainSettings, problems: Problems, say: Callable[[str], None]
) -> None:
    if (run / METRICS).exists():
        problems.warnings = doubts(settings, run / METRICS)
        for line in problems.warnings:
            say(f"note: {line}")


def _with_loss(task: Task, labeled: LabeledSet, problems: Problems) -> LabeledSet:
    """Take the images that have a loss: the head would learn that the others' is 0."""
    classes = task.classes(labeled.labels)
    rows = [row for row, label in enumerate(labeled.labels) if task.has_loss(label, classes)]
    if not rows or len(rows) == len(labeled):
        return labeled  # none at all: Task.check says what to label
    problems.note(
        f"{len(labeled) - len(rows)} of {len(labeled)} labeled images show nothing that a loss "
        "can be measured on: they are not trained on"
    )
    return labeled.take(rows)


def _pixels_sha256(images: NDArray[np.uint8]) -> str:
    """Digest decoded images: a file may hold other pixels under the same name later."""
    digest = hashlib.sha256(repr(images.shape).encode())
    for image in images:  # one at a time: they may be on disk
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _decoded(
    task: Task, labeled: LabeledSet, settings: TrainSettings, run: Path, problems: Problems
) -> tuple[TrainingData, TrainingData]:
    """Decode the images to train on, and a few of them as a scorer decodes them."""
    classes = task.classes(labeled.labels)
    task.check(labeled.labels, classes)
    sweep(run)
    data, rows = load_examples(
        labeled, classes, settings, problems, for_training=not settings.freeze, scratch=run
    )
    _check_left(task, labeled.take(rows), classes, problems)
    if data.cut and (line := data.cut.line("labeled", "is not learned")):
        problems.note(line)
    few = max(2, min(SAMPLE, SAMPLE_BYTES // (3 * settings.size**2)))
    sample, _ = load_examples(labeled.take(rows[:few]), data.classes, settings, problems)
    return data, sample


def _check_left(
    task: Task, usable: LabeledSet, classes: tuple[str, ...], problems: Problems
) -> None:
    """Note classes of which no image is left, and refuse images that teach nothing."""
    left = task.classes(usable.labels)
    gone = [repr(name) for name in classes if name not in left]
    if not gone:
        return
    line = f"{usable.origin}: no image of the class {first_names(gone, 5)} can be used"
    problems.note(f"{line}: the network does not learn it")
    try:
        task.check(usable.labels, left)
    except LabelError as error:
        raise LabelError(f"{line}; {error}") from error


def earlier_run(
    run: Path,
    settings: TrainSettings,
    labels_sha256: str,
    labeled: int,
    start_sha256: str,
    resume: bool,
) -> Checkpoint | None:
    """Load the run to resume, if there is one, and refuse one of other settings or labels."""
    if not (run / FILE).exists():
        return None
    if not resume:
        raise CheckpointError(
            f"{run}: holds a training run already; go on with --resume (in Python resume=True), or "
            "choose another folder"
        )
    before = load_checkpoint(run)
    old, new = before.settings.as_dict(), settings.filled_from(before.settings).as_dict()
    if not settings.taps:
        new["taps"] = old["taps"]  # found automatically then as now
    for name in old:
        if old[name] != new[name]:
            raise CheckpointError(
                f"{run}: was trained with {name} = {old[name]!r}, now it is {new[name]!r}; "
                "resume with the old value, or choose another folder"
            )
    if before.labels_sha256 != labels_sha256:
        raise CheckpointError(
            f"{run}: was trained on other labels ({before.labeled} images, now {labeled}); "
            "choose another folder"
        )
    if before.start_sha256 != start_sha256:
        raise CheckpointError(
            f"{run}: was begun with {'another' if before.start_sha256 else 'no'} warm start; "
            "resume with the same --warm-start, or choose another folder"
        )
    return before


class RunWriter:
    """Writes a run's checkpoint, which lacks only the trainer's state, and its metrics."""

    def __init__(self, run: Path, trainer: Trainer, checkpoint: Checkpoint) -> None:
        self.run, self.trainer, self.checkpoint = run, trainer, checkpoint
        self.saved = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint of this very step."""
        dataclasses.replace(self.checkpoint, state=self.trainer.state()).save(self.run / FILE)
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
            raise write_error(error, path) from error


def train_epochs(
    trainer: Trainer,
    observe: Observe = dict,
    writer: RunWriter | None = None,
    interrupted: threading.Event | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, float]]:
    """Train to the end, and return the figures of each epoch.

    ``observe`` measures more figures at the end of each. When ``interrupted`` is set, ``writer``
    writes a checkpoint, and ``InterruptedRunError`` follows. ``say`` receives an estimate of the
    time that the rest takes.
    """
    done: list[dict[str, float]] = []
    epochs, images = trainer.settings.epochs, trainer.batches.images
    before = trainer.epoch * images + trainer.totals["images"]
    pace = Pace.of(trainer, say)
    with progress(total=epochs * images, initial=before, unit="images", desc="train") as bar:
        while not trainer.finished:
            figures = trainer.advance()
            pace.step()
            if figures is not None:
                figures |= observe()
                done.append(figures)
                if writer:
                    writer.log(figures)
                names = [n for n in ("loss", "ranking_accuracy") if n in figures]
                bar.set_description(f"train {trainer.epoch}/{epochs}", refresh=False)
                bar.set_postfix({name: figures[name] for name in names}, refresh=False)
            bar.update(trainer.epoch * images + trainer.totals["images"] - bar.n)
            if writer is None or interrupted is None:
                continue
            if interrupted.is_set():
                writer.save()
                raise InterruptedRunError(
                    f"stopped after {trainer.epoch} of {epochs} epochs; {writer.run / FILE} holds "
                    "the state: run it again with --resume (in Python resume=True) to go on"
                )
            writer.save_if_due()
    if writer:
        writer.save()
    return done


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
