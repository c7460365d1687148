"""A training run: decode, train, checkpoint; interrupted and resumed at any step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lloss.annotations import Problems
from lloss.data.image_overlap import traces
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, SettingsError
from lloss.files import sweep, write_text
from lloss.tasks import get_task
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.first_names import first_names
from lloss.training.checkpoint import FILE, Checkpoint, load_checkpoint
from lloss.training.decisions import decide
from lloss.training.divergence import doubts, few_steps_note
from lloss.training.frozen import settings_of_frozen, train_frozen, without_effect
from lloss.training.probe import probe
from lloss.training.run_folder import (
    METRICS,
    continue_run,
    earlier_run,
    refuse_other_images,
    training_folder,
    with_taps,
)
from lloss.training.trainer import Trainer, finished_state
from lloss.training.training_data import TrainingData, load_examples, pixels_sha256
from lloss.training.warm_start import take_weights

SAMPLE = 64
"""Images kept in the checkpoint, as many as the largest batch that an export is checked at."""

SAMPLE_BYTES = 4 << 20  # They take no more: a checkpoint is written often


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
    is a run whose weights to start from instead of fresh ones; with the setting ``freeze`` no step
    is taken, see :mod:`lloss.training.frozen`. ``problems`` are of labels and images, and doubts
    about the network; ``say`` receives a line on each thing left out.

    Raises ``CheckpointError`` for a run that is there, at work or of other settings,
    ``LabelError``, ``DivergedError`` (the checkpoint before stays), or ``InterruptedRunError`` on
    Ctrl-C.
    """
    with training_folder(run):
        return _train(
            labeled, settings, run, resume, warm_start, device, problems or Problems(), say
        )


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
    if settings.freeze:
        if line := without_effect(settings):
            say(f"note: {line}")
        settings = settings_of_frozen(settings)
    labeled = _with_loss(task, labeled.ordered(), problems)
    task.check(labeled.labels, task.classes(labeled.labels))
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

    images = pixels_sha256(data.images)
    if before is not None:
        refuse_other_images(run, before, images)
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
        before.check_code(trainer.model)
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
        settings=with_taps(checkpoint.settings, fitted.network),
        state=finished_state(fitted.network),
        probe=probe(fitted.network, checkpoint.settings, checkpoint.sample),
    ).save(run / FILE)
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


def _decoded(
    task: Task, labeled: LabeledSet, settings: TrainSettings, run: Path, problems: Problems
) -> tuple[TrainingData, TrainingData]:
    """Decode the images to train on, and a few of them as a scorer decodes them."""
    classes = task.classes(labeled.labels)
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
