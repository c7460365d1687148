"""One cycle: train → evaluate → export → score → select → report.

::

    cycles/001/
      cycle.json, labels.*         settings and labels at the start of the cycle
      checkpoint.pt, metrics.jsonl
      evaluation.json              if there are held-out images
      model.onnx, scores/
      selected.csv, report.html
      selected.*                   task lists with predictions, of the setting ``formats``
      summary.json                 written last: the cycle is complete

Each step writes its file atomically, so an interrupted cycle resumes at the first step whose file
is missing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import DivergedError, InterruptedRunError, LabelError, ProjectError
from lloss.export.automatic_precision import AUTO, AutomaticPrecision
from lloss.export.export_model import export_onnx
from lloss.export.pool_sample import ReferenceSample
from lloss.files import sweep, write_json
from lloss.manifest import Manifest, read_manifest
from lloss.pools import Pool, SubsetPool
from lloss.project.changes import content_hashes, note_changes, note_training
from lloss.project.labeling_tasks import (
    SUFFIXES,
    TaskListSettings,
    TaskListWriter,
    remove_tasks,
)
from lloss.project.pick_predictions import PickModel, known_model, trained_model
from lloss.project.project import FILE, Project
from lloss.project.report import Report, write_report
from lloss.project.selected_images import describe_picks
from lloss.project.summary import SUMMARY, Summary, read_summaries
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection, select
from lloss.selection.selection_file import write_selection
from lloss.selection.ties import tie_note
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.scorer import Scorer
from lloss.tasks.train_settings import TrainSettings
from lloss.training.cautions import cautions, how_picked, measured, ranked
from lloss.training.checkpoint import FILE as CHECKPOINT
from lloss.training.checkpoint import Checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.run import train

START, EVALUATION, MODEL = "cycle.json", "evaluation.json", "model.onnx"
SELECTED, REPORT = "selected.csv", "report.html"

FIXED_SETTINGS = (
    "pool", "holdout", "test", "test_labels", "warm_start", "skip_bad", "empty", "precision",
)  # fmt: skip
"""Besides the training settings, what a cycle keeps from its start to its end."""

WORTH_JUDGING = 50_000
"""Images to score from which int8 of a small network saves more time than its comparison takes."""


@dataclass(frozen=True)
class Outcome:
    """The result of ``lloss next``; ``fresh`` is False if there were no new labels."""

    folder: Path
    summary: Summary
    fresh: bool


def next_cycle(
    project: Project, say: Callable[[str], None] = lambda _: None, at_most: bool = False
) -> Outcome:
    """Resume the interrupted cycle, or run one on the current labels.

    ``say`` receives a line about each step. With ``at_most``, all images are selected if fewer than
    K are left. After an error, once its cause is removed, the cycle resumes at that step.
    """
    say = _without_repeats(say)
    done = read_summaries(project.cycles)
    folder = project.cycles / f"{len(done) + 1:03d}"
    if not _resumes(folder, project, say):
        problems = project.problems()
        with problems.explaining():
            labeled = project.open_labels(problems=problems)
        known = done[-1].classes if done else ()
        project.task.note_classes(labeled.labels, problems, known)
        if done:
            _note_changes(project, labeled, project.cycles / f"{len(done):03d}", problems)
        for line in problems.lines():
            say(line)
        if done and done[-1].labels_sha256 == labeled.sha256:
            return Outcome(project.cycles / f"{len(done):03d}", done[-1], False)
        _start(folder, project, labeled, problems)
    return Outcome(folder, _Cycle(project, folder, done, say).run(at_most), True)


def _without_repeats(say: Callable[[str], None]) -> Callable[[str], None]:
    """Drop repeated lines: several steps read the same labels and the same pool."""
    said: set[str] = set()

    def say_new(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_new


def _resumes(folder: Path, project: Project, say: Callable[[str], None]) -> bool:
    """Decide whether to finish an interrupted cycle, with the settings of its start.

    Before the first checkpoint nothing is lost by starting again with the current settings.
    """
    if not ((folder / START).exists() and (folder / CHECKPOINT).exists()):
        return False
    sweep(folder)
    say(f"resume cycle {folder.name}, which was interrupted")
    if _at_start(folder, project) != project:
        say(f"the changed settings apply from the next cycle on; to use them now, remove {folder}")
    return True


def _at_start(folder: Path, project: Project) -> Project:
    """Return the project with the settings that the cycle started with."""
    path = folder / START
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = TrainSettings.from_dict(content["train"], str(path))
        return replace(project, train=settings, **content["project"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProjectError(f"{path}: is damaged; remove the cycle to run it again") from error


def _start(folder: Path, project: Project, labeled: LabeledSet, problems: Problems) -> None:
    """Write the cycle's settings and labels: both may change while it runs."""
    for name in (EVALUATION, MODEL):  # left by a checkpoint that a user removed
        (folder / name).unlink(missing_ok=True)
    ordered = labeled.ordered()
    labels = {item.id: label for item, label in zip(ordered.items, ordered.labels)}
    project.task.write_labels(labels, folder / project.task.labels_file)
    content: dict[str, Any] = {
        "train": project.train.as_dict(),
        "project": {name: getattr(project, name) for name in FIXED_SETTINGS},
        "left_out": len(problems.broken),
        "notes": problems.lines(),
        "images": content_hashes(labeled),
    }
    write_json(folder / START, content)


def _note_changes(project: Project, labeled: LabeledSet, last: Path, problems: Problems) -> None:
    try:
        content = json.loads((last / START).read_text(encoding="utf-8"))
        images = dict(content.get("images", {}))
        before = project.task.read_labels(last / project.task.labels_file, Problems(skip=True))
    except (OSError, ValueError, TypeError, AttributeError, LabelError):
        files = f"{START} or {project.task.labels_file}"  # does not stop a new cycle
        problems.note(
            f"{last}: {files} is damaged or missing: changes of labels since then are not noticed"
        )
        return
    note_changes(before, images, labeled, last.name, problems)


class _Cycle:
    """The steps of one cycle, each skipped if its file exists."""

    def __init__(
        self, project: Project, folder: Path, done: list[Summary], say: Callable[[str], None]
    ) -> None:
        self.project = _at_start(folder, project)
        self.folder, self.done, self.say = folder, done, say
        self.number = len(done) + 1
        self.task, self.settings = self.project.task, self.project.train
        self.problems = self.project.problems()
        self.labeled = self.project.open_labels(folder / self.task.labels_file, self.problems)
        self.training, self.held_out = self.project.split(self.labeled, self.problems)
        separate = self.project.test or self.project.test_labels
        self.held_back = 0 if separate or self.held_out is None else len(self.held_out)
        self.scores = ScoresFolder(folder / "scores")
        self._say_notes()

    def run(self, at_most: bool) -> Summary:
        """Run the steps that are not done yet."""
        checkpoint = self._train()
        if self.done:
            note_training(self._training_before(), checkpoint.settings.as_dict(), self.problems)
        evaluation = self._evaluate(checkpoint)
        pool = self.project.open_pool()
        excluded = self.project.test_ids(pool, self.held_out, self.problems)
        excluded |= {item.id for item in self.labeled.items}
        self._say_notes()
        self._export(checkpoint, pool, excluded)
        counts = self._score(pool, excluded)
        selection = self._select(at_most)
        tied = tie_note(self.scores.opened(), selection).removeprefix("warning: ")
        better = False if tied else ranked(evaluation)
        column = "number" if better is False else "rank"
        write_selection(selection, self.folder / SELECTED, place=column)
        warnings = self._warnings(evaluation, selection, tied)
        manifest = read_manifest(self.folder / MODEL)
        start = json.loads((self.folder / START).read_text(encoding="utf-8"))
        notes = [*start.get("notes", []), *self.problems.lines(), *warnings]
        summary = Summary(
            cycle=self.number,
            labeled=len(self.training),
            selected=len(selection),
            classes=self.task.summarize(self.training.labels),
            labels_sha256=self.labeled.sha256,
            evaluation=evaluation,
            metric_name=self.task.metric,
            left_out=int(start.get("left_out", 0)) + len(self.problems.broken),
            held_back=self.held_back,
            precision=manifest.precision,
            ranked=better,
            warnings=warnings,
            training=checkpoint.settings.as_dict(),
            notes=list(dict.fromkeys(notes)),
            **counts,
        )
        how = how_picked(selection, tied, better)
        model = self._model(checkpoint, selection)
        self._write_task_lists(selection, pool, model)
        self._report(summary, checkpoint.settings, selection, how, pool, manifest, model)
        write_json(self.folder / SUMMARY, asdict(summary))
        return summary

    def _train(self) -> Checkpoint:
        previous = self.project.cycles / f"{self.number - 1:03d}"
        classes = self.task.classes(self.training.labels)
        of = f" ({self.held_back} of {len(self.labeled)} are held out)" if self.held_back else ""
        self.say(
            f"train {self.settings.model} on {len(self.training)} labeled images of "
            f"{len(classes)} classes{of}"
        )
        with self._remedy():
            return train(
                self.training,
                self.settings,
                self.folder,
                resume=True,
                warm_start=previous if self.project.warm_start and self.number > 1 else None,
                problems=self.problems,
                say=self.say,
            )

    @contextlib.contextmanager
    def _remedy(self) -> Iterator[None]:
        """Add to an error what to do in a project."""
        try:
            yield
        except InterruptedRunError as error:
            raise InterruptedRunError(
                f"cycle {self.number:03d} was stopped in training; run the same command again to "
                "resume it"
            ) from error
        except DivergedError as error:
            raise DivergedError(
                f"{error}. Change the settings under [train] in {self.project.root / FILE}, "
                f"remove {self.folder} and run the same command again"
            ) from error

    def _training_before(self) -> dict[str, Any]:
        """The settings of the cycle before; of earlier versions those of its start."""
        with contextlib.suppress(ProjectError):
            last = self.project.cycles / f"{self.number - 1:03d}"
            return self.done[-1].training or _at_start(last, self.project).train.as_dict()
        return {}

    def _evaluate(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        if self.held_out is None:
            self.say("no held-out images, so nothing is measured (see test and holdout)")
            return None
        path = self.folder / EVALUATION
        if not path.exists():
            evaluation = evaluate_checkpoint(checkpoint, self.held_out, self.problems)
            write_json(path, evaluation.as_dict())
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        result = measured(figures, self.task.metric)
        self.say(f"measure on {figures['images']} held-out images: {result}")
        for line in figures.get("missed", []):
            self.say(line)
            self.problems.note(line)
        return figures

    def _export(self, checkpoint: Checkpoint, pool: Pool, excluded: set[str]) -> None:
        if (self.folder / MODEL).exists():
            return
        self.say(f"export {self.folder / MODEL}")
        unlabeled = SubsetPool(pool, excluded)
        automatic = self.project.precision == AUTO
        reduction = reference = None
        if pool.streamed:  # a sample of a stream costs as much as all of it
            if automatic:
                self.say(f"precision: fp32; {pool.uri} is read from its start for every comparison")
        elif automatic:
            reduction = AutomaticPrecision(pool=unlabeled, least_images=WORTH_JUDGING)
        else:
            reference = ReferenceSample(pool=unlabeled, required=False)
        with self._remedy():
            export_onnx(checkpoint, self.folder / MODEL, reduction, self.say, reference)

    def _score(self, pool: Pool, excluded: set[str]) -> dict[str, int]:
        self.say(f"score the unlabeled images of {pool.uri}")
        with Scorer(self.folder / MODEL) as scorer:
            report = score_pool(scorer, pool, self.scores.path, exclude=excluded)
        self.problems.note(pool.remark())
        self._say_notes()
        if not report.scored:
            raise LabelError(f"{pool.uri}: every image is labeled, none is left to select")
        if report.skipped:
            where = self.scores.path / "skipped.parquet"
            self.say(f"{report.skipped} images cannot be read, see {where}")
        return {"scored": report.scored, "skipped": report.skipped}

    def _select(self, at_most: bool) -> Selection:
        # K comes from lloss.toml as it is now, so that a K that is too large can be corrected.
        settings = self.project.selection(self.number, at_most)
        # Exclude labels added since the start of the cycle as well.
        labeled = self.project.open_labels(problems=Problems(skip=True))
        return select(self.scores.opened(), settings, {item.id for item in labeled.items})

    def _warnings(
        self, evaluation: dict[str, Any] | None, selection: Selection, tied: str
    ) -> list[str]:
        warnings = cautions(evaluation, self.task.metric) if evaluation else []
        if tied:
            warnings.append(tied)
        if unusable := selection.unusable():
            warnings.append(f"images that could not be selected: {', '.join(unusable)}")
        for line in warnings:
            self.say(f"warning: {line}")
        return warnings + self.problems.warnings  # training has printed the doubts

    def _model(self, checkpoint: Checkpoint, selection: Selection) -> PickModel:
        manifest = read_manifest(self.folder / MODEL)
        scored = known_model(manifest, selection.ids, self.scores)
        return scored or trained_model(checkpoint)

    def _write_task_lists(self, selection: Selection, pool: Pool, model: PickModel) -> None:
        for format in self.project.formats:
            path = self.folder / f"selected.{format}{SUFFIXES[format]}"
            remove_tasks(path)  # of a cycle that was interrupted
            settings = TaskListSettings(format=format)
            self.say(f"{path}: task list of {len(selection)} images")
            for line in TaskListWriter(selection, pool, model, settings).write(path):
                self.say(line)

    def _report(
        self,
        summary: Summary,
        settings: TrainSettings,
        selection: Selection,
        how: str,
        pool: Pool,
        manifest: Manifest,
        model: PickModel,
    ) -> None:
        training = (
            f"{settings.epochs} epochs of batches of {settings.batch_size}, {settings.optimizer} "
            f"at {settings.lr:g}, {settings.size} pixels, first weights {settings.weights}"
        )
        if settings.freeze:
            training = f"the head alone, {settings.size} pixels, weights {settings.weights}"
        report = Report(
            project=self.project.root.resolve().name,
            task=settings.task,
            model=settings.model,
            metric=self.task.metric_title,
            cycles=[*self.done, summary],
            selected_how=how,
            losses=self.scores.column("loss"),
            picks=describe_picks(selection, pool, model, manifest.image),
            provenance={
                "checkpoint": str(manifest.provenance.get("checkpoint_sha256", "")),
                "labels": summary.labels_sha256,
                "head": f"{settings.head_loss}, weight {settings.head_weight:g}",
                "training": f"{training}, seed {settings.seed}",
                "precision": manifest.precision,
            },
            counted=self.task.counted,
        )
        write_report(report, self.folder / REPORT)

    def _say_notes(self) -> None:
        for line in self.problems.notes:
            self.say(line)
