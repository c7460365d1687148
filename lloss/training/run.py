"""A training run: decode, train, checkpoint; interrupted and resumed at any step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lloss.annotations import Problems
from lloss.data.image_overlap import traces
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, SettingsError
from lloss.files import sweep, write_json, write_text
from lloss.runtime.torchrun_process import TorchrunProcess
from lloss.tasks import get_task
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.counts import part
from lloss.text.first_names import first_names
from lloss.training.checkpoint import FILE, Checkpoint, load_checkpoint
from lloss.training.cross_validation import (
    CrossValidation,
    check_folds,
    in_line,
    other_folds,
    plan,
    remove_folds,
)
from lloss.training.decisions import decide
from lloss.training.divergence import doubts, few_steps_note
from lloss.training.frozen import settings_of_frozen, train_frozen, without_effect
from lloss.training.probe import probe
from lloss.training.process_group import refuse_few_gpus
from lloss.training.ranking_evidence import CROSS_VALIDATION
from lloss.training.run_folder import (
    METRICS,
    continue_run,
    earlier_run,
    kept,
    refuse_other_images,
    training_folder,
    with_taps,
)
from lloss.training.shared_jobs import refuse_small_batches, send_training
from lloss.training.torchrun import AGAIN, called
from lloss.training.trained_prints import PRINTS, add_prints, keep_prints
from lloss.training.trainer import Trainer, device_of, finished_state
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
    process: TorchrunProcess | None = None,
    unmeasured: bool = False,
    known: Path | None = None,
) -> Checkpoint:
    """Train on a labeled set and leave ``checkpoint.pt`` and ``metrics.jsonl`` in ``run``.

    ``resume`` continues the run in the folder, which may be finished, or not begun; ``warm_start``
    is a run whose weights to start from instead of fresh ones; with the setting ``freeze`` no step
    is taken, see :mod:`lloss.training.frozen`. ``problems`` are of labels and images, and doubts
    about the network; ``say`` receives a line on each thing left out. ``process`` is the leading
    one of several that train together, see :mod:`lloss.training.torchrun`. ``unmeasured``, no other
    images will measure it: see :func:`.cross_validation.plan`. ``known`` is a run on many of the
    same images: what near-duplicates are known by is taken from it, see :mod:`.trained_prints`.

    Raises ``CheckpointError`` for a run that is there, at work or of other settings,
    ``LabelError``, ``DivergedError`` (the checkpoint before stays), or ``InterruptedRunError`` on
    Ctrl-C.
    """
    with training_folder(run):
        training = _Training(run, device, problems or Problems(), say, process, unmeasured, known)
        return training.of(labeled, settings, resume, warm_start)


@dataclass(frozen=True)
class _Training:
    """What all steps of a training share."""

    run: Path
    device: str
    problems: Problems
    say: Callable[[str], None]
    process: TorchrunProcess | None
    unmeasured: bool
    known: Path | None

    def of(
        self, labeled: LabeledSet, settings: TrainSettings, resume: bool, warm_start: Path | None
    ) -> Checkpoint:
        """Check everything, decode, and train what is left to train."""
        task = get_task(settings.task)
        self._refuse_in_several(settings)
        if settings.freeze:
            settings = self._of_frozen(settings, warm_start)
        labeled = _with_loss(task, labeled.ordered(), self.problems)
        task.check(labeled.labels, task.classes(labeled.labels))
        check_folds(settings, len(labeled), warm_start is not None)
        start = load_checkpoint(warm_start) if warm_start else None
        start_sha256 = start.sha256 if start else ""
        before = earlier_run(self.run, settings, labeled.sha256, len(labeled), start_sha256, resume)
        settings = self._decided(task, settings, labeled, start, before)
        data, sample, labeled = _decoded(task, labeled, settings, self.run, self.problems)
        self._say_each(self.problems.lines())
        images = pixels_sha256(data.images)
        if before is not None:
            refuse_other_images(self.run, before, images)
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
        if before is None:
            remove_folds(self.run)
            (self.run / PRINTS).unlink(missing_ok=True)
        if before is not None and before.finished:
            self._say_doubts(settings)
        elif settings.freeze:
            before = self._freeze(checkpoint, data)
        else:
            before = self._train(checkpoint, data, before, start)
        self._keep_prints(labeled, warm_start)
        return self._cross_validated(before, settings, labeled, data)

    def _keep_prints(self, labeled: LabeledSet, warm_start: Path | None) -> None:
        if (self.run / PRINTS).exists():
            return
        keep_prints(self.run, labeled.items, self.known)
        if warm_start is not None:
            add_prints(self.run, warm_start)

    def _refuse_in_several(self, settings: TrainSettings) -> None:
        if self.process is None:
            return
        if settings.freeze:
            raise SettingsError(
                "freeze = True: trains a head in seconds, in one process; run it without torchrun"
            )
        if settings.compile:
            raise SettingsError(
                "compile = True: is not for several processes; leave it out, or train with one"
            )
        if settings.folds > 0:
            raise SettingsError(
                f"folds = {settings.folds}: cross-validation takes one process; train without "
                f"folds, then run it again without torchrun, with --resume --folds {settings.folds}"
            )
        if device_of(self.device).type == "cuda":
            refuse_few_gpus(self.process)

    def _of_frozen(self, settings: TrainSettings, warm_start: Path | None) -> TrainSettings:
        if warm_start:
            raise SettingsError(
                "freeze: the network is that of --weights; leave the warm start out"
            )
        if line := without_effect(settings):
            self.say(f"note: {line}")
        return settings_of_frozen(settings)

    def _decided(
        self,
        task: Task,
        settings: TrainSettings,
        labeled: LabeledSet,
        start: Checkpoint | None,
        before: Checkpoint | None,
    ) -> TrainSettings:
        if before is not None:
            return settings.filled_from(before.settings)
        decided = decide(task, settings, labeled, start.settings if start else None)
        self._say_each(decided.lines)
        return decided.settings

    def _train(
        self,
        checkpoint: Checkpoint,
        data: TrainingData,
        before: Checkpoint | None,
        start: Checkpoint | None,
    ) -> Checkpoint:
        settings = checkpoint.settings
        trainer = Trainer(settings, data, self.device)
        if before is not None:
            trainer.load_state(before.state)
            before.check_code(trainer.model)
        elif start is not None:
            self.say(take_weights(trainer.model, start, settings, data.classes))
        elif trainer.model.start is not None:
            self.say(trainer.model.start.line)
        if note := few_steps_note(trainer.model, settings.epochs * trainer.steps):
            self.problems.note(note)
            self.say(note)
        done = self._continued(trainer, checkpoint, data)
        self._say_doubts(settings)
        return done

    def _continued(
        self, trainer: Trainer, checkpoint: Checkpoint, data: TrainingData
    ) -> Checkpoint:
        """Train to the end, with other processes where there are any."""
        if self.process is None:
            return continue_run(self.run, trainer, checkpoint, say=self.say)
        refuse_small_batches(trainer, self.process.count)

        def remedy() -> str:
            return f"{AGAIN} with --resume. {kept(self.run)}"

        with called(self.process, device_of(self.device), remedy) as processes:
            send_training(processes, trainer, data, self.run)
            self.say(f"train in {processes.count} processes, which share each batch")
            return continue_run(self.run, trainer, checkpoint, say=self.say)

    def _cross_validated(
        self, done: Checkpoint, settings: TrainSettings, labeled: LabeledSet, data: TrainingData
    ) -> Checkpoint:
        """Measure a finished training by more of them, where the settings or their cost say so."""
        if settings.freeze:
            return done
        if (self.run / CROSS_VALIDATION).exists():
            self._say_each(other_folds(settings, self.run))
            return done
        warm = bool(done.start_sha256)
        how = plan(settings, self.run, len(labeled), warm, self.unmeasured)
        if how.folds and self.process is not None:
            self.say(
                "not measured: cross-validation takes one process; run it again with --resume, "
                "without torchrun"
            )
            return done
        self._say_each(filter(None, [how.line]))
        if not how.folds:
            self.problems.note(how.line)  # for the report of a cycle
            return done
        return CrossValidation(self.run, done, labeled, data, self.device, self.say).measure(
            how.folds
        )

    def _freeze(self, checkpoint: Checkpoint, data: TrainingData) -> Checkpoint:
        """Train the head alone, and write it as a run that is finished."""
        fitted = train_frozen(checkpoint.settings, data, self.device)
        self._say_each(fitted.lines)
        figures = {"epoch": 1, "loss": fitted.head.mean_loss}
        write_text(self.run / METRICS, json.dumps(figures) + "\n")
        found, metric = fitted.figures(), get_task(checkpoint.settings.task).metric
        self.say(in_line(found, metric))
        write_json(self.run / CROSS_VALIDATION, found)
        dataclasses.replace(
            checkpoint,
            settings=with_taps(checkpoint.settings, fitted.network),
            state=finished_state(fitted.network),
            probe=probe(fitted.network, checkpoint.settings, checkpoint.sample),
            unit=fitted.head.unit,
        ).save(self.run / FILE)
        return load_checkpoint(self.run)

    def _say_doubts(self, settings: TrainSettings) -> None:
        if (self.run / METRICS).exists():
            self.problems.warnings = doubts(settings, self.run / METRICS)
            self._say_each(f"note: {line}" for line in self.problems.warnings)

    def _say_each(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)


def _with_loss(task: Task, labeled: LabeledSet, problems: Problems) -> LabeledSet:
    """Take the images that have a loss: the head would learn that the others' is 0."""
    classes = task.classes(labeled.labels)
    rows = [row for row, label in enumerate(labeled.labels) if task.has_loss(label, classes)]
    if not rows or len(rows) == len(labeled):
        return labeled  # none at all: Task.check says what to label
    problems.note(
        f"{part(len(labeled) - len(rows), len(labeled), 'labeled images', 'show')} nothing that a "
        "loss can be measured on: not trained on"
    )
    return labeled.take(rows)


def _decoded(
    task: Task, labeled: LabeledSet, settings: TrainSettings, run: Path, problems: Problems
) -> tuple[TrainingData, TrainingData, LabeledSet]:
    """Decode the images to train on, and a few of them as a scorer decodes them.

    The third are those that could be decoded.
    """
    classes = task.classes(labeled.labels)
    sweep(run)
    data, rows = load_examples(
        labeled, classes, settings, problems, for_training=not settings.freeze, scratch=run
    )
    usable = labeled.take(rows) if len(rows) < len(labeled) else labeled
    _check_left(task, usable, classes, problems)
    if data.cut and (line := data.cut.line("labeled", "is not learned")):
        problems.note(line)
    few = max(2, min(SAMPLE, SAMPLE_BYTES // (3 * settings.size**2)))
    sample, _ = load_examples(labeled.take(rows[:few]), data.classes, settings, problems)
    return data, sample, usable


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
