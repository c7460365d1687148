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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.errors import LabelError, ProjectError
from lloss.files import sweep, write_json
from lloss.manifest import Manifest, read_manifest
from lloss.pools import Pool, SubsetPool
from lloss.project.changes import note_training
from lloss.project.cycle_model import EVALUATION, MODEL, CycleModel
from lloss.project.cycle_output import REPORT, SELECTED, training_in_words, write_task_lists
from lloss.project.cycle_start import START, note_changes_since, read_start, write_start
from lloss.project.pick_predictions import PickModel, known_model, trained_model
from lloss.project.project import Project
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
from lloss.training.cautions import cautions, how_picked, ranked
from lloss.training.checkpoint import FILE as CHECKPOINT
from lloss.training.checkpoint import Checkpoint


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
    last = project.cycles / f"{len(done):03d}"
    if not _resumes(folder, project, say):
        problems = project.problems()
        with problems.explaining():
            labeled = project.open_labels(problems=problems)
        known = done[-1].classes if done else ()
        project.task.note_classes(labeled.labels, problems, known)
        if done:
            note_changes_since(last, project, labeled, problems)
        for line in problems.lines():
            say(line)
        if done and done[-1].labels_sha256 == labeled.sha256:
            return Outcome(last, done[-1], False)
        for name in (EVALUATION, MODEL):  # left by a checkpoint that a user removed
            (folder / name).unlink(missing_ok=True)
        write_start(folder, project, labeled, problems)
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
    if read_start(folder, project).project != project:
        say(f"the changed settings apply from the next cycle on; to use them now, remove {folder}")
    return True


class _Cycle:
    """The steps of one cycle, each skipped if its file exists."""

    def __init__(
        self, project: Project, folder: Path, done: list[Summary], say: Callable[[str], None]
    ) -> None:
        self.start = read_start(folder, project)
        self.project = self.start.project
        self.folder, self.done, self.say = folder, done, say
        self.number = len(done) + 1
        self.task = self.project.task
        self.problems = self.project.problems()
        self.labeled = self.project.open_labels(folder / self.task.labels_file, self.problems)
        self.training, self.held_out = self.project.split(self.labeled, self.problems)
        separate = self.project.test or self.project.test_labels
        self.held_back = 0 if separate or self.held_out is None else len(self.held_out)
        self.scores = ScoresFolder(folder / "scores")
        self._say_notes()

    def run(self, at_most: bool) -> Summary:
        """Run the steps that are not done yet."""
        model = CycleModel(self.project, self.folder, self.problems, self.say)
        before = self.project.cycles / f"{self.number - 1:03d}" if self.done else None
        checkpoint = model.train(self.training, self.held_back, before)
        if before:
            settings = self._settings_of(before)
            note_training(settings, checkpoint.settings.as_dict(), self.problems)
        evaluation = model.evaluate(checkpoint, self.held_out)
        pool = self.project.open_pool()
        excluded = self.project.test_ids(pool, self.held_out, self.problems)
        excluded |= {item.id for item in self.labeled.items}
        self._say_notes()
        model.export(checkpoint, SubsetPool(pool, excluded))
        counts = self._score(pool, excluded)
        selection = self._select(at_most)
        tied = tie_note(self.scores.opened(), selection).removeprefix("warning: ")
        better = False if tied else ranked(evaluation)
        column = "number" if better is False else "rank"
        write_selection(selection, self.folder / SELECTED, place=column)
        warnings = self._warnings(evaluation, selection, tied)
        manifest = read_manifest(self.folder / MODEL)
        notes = [*self.start.notes, *self.problems.lines(), *warnings]
        summary = Summary(
            cycle=self.number,
            labeled=len(self.training),
            selected=len(selection),
            classes=self.task.summarize(self.training.labels),
            labels_sha256=self.labeled.sha256,
            evaluation=evaluation,
            metric_name=self.task.metric,
            left_out=self.start.left_out + len(self.problems.broken),
            held_back=self.held_back,
            precision=manifest.precision,
            ranked=better,
            warnings=warnings,
            training=checkpoint.settings.as_dict(),
            notes=list(dict.fromkeys(notes)),
            **counts,
        )
        how = how_picked(selection, tied, better)
        shown = self._model(checkpoint, selection)
        write_task_lists(self.project, self.folder, selection, pool, shown, self.say)
        self._report(summary, checkpoint.settings, selection, how, pool, manifest, shown)
        write_json(self.folder / SUMMARY, asdict(summary))
        return summary

    def _settings_of(self, before: Path) -> dict[str, Any]:
        """The settings of the cycle before; of earlier versions those of its start."""
        with contextlib.suppress(ProjectError):
            start = read_start(before, self.project)
            return self.done[-1].training or start.project.train.as_dict()
        return {}

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
                "training": training_in_words(settings),
                "precision": manifest.precision,
            },
            counted=self.task.counted,
        )
        write_report(report, self.folder / REPORT)

    def _say_notes(self) -> None:
        for line in self.problems.notes:
            self.say(line)
