"""One cycle: train → evaluate → export → score → select → report.

::

    cycles/001/
      cycle.json, labels.*         settings and labels at the start of the cycle
      checkpoint.pt, metrics.jsonl
      evaluation.json              if there are held-out images
      cross_validation.json        of a frozen network, or if few images are held out
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.errors import ProjectError
from lloss.files import sweep, write_json
from lloss.manifest import read_manifest
from lloss.pools import Pool, SubsetPool
from lloss.project.changes import note_training
from lloss.project.cycle_choice import (
    CyclePicks,
    distance_note,
    lift_of_rounds,
    pick_images,
    refuse_too_few,
)
from lloss.project.cycle_model import EVALUATION, MODEL, CycleModel
from lloss.project.cycle_output import REPORT, training_in_words, write_task_lists
from lloss.project.cycle_start import (
    START,
    note_changes_since,
    note_picks_without_label,
    read_start,
    write_start,
)
from lloss.project.first_picks import FOLDER as FIRST
from lloss.project.first_picks import choose_first
from lloss.project.pick_payoff import Payoff, measure_payoff
from lloss.project.pick_predictions import PickModel, known_model, trained_model
from lloss.project.picks_file import SELECTED
from lloss.project.project import Project
from lloss.project.report import Report, write_report
from lloss.project.selected_images import describe_picks
from lloss.project.summary import (
    SUMMARY,
    Summary,
    ranking_of,
    read_summaries,
    read_summary,
)
from lloss.project.trust_figures import (
    TrustFigures,
    compare_predictions,
    gain_of,
    remarks_on,
    trust_lines,
)
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection
from lloss.selection.selection_file import write_selection
from lloss.selection.ties import tie_note
from lloss.selection.vectors import usual_embedding
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.scorer import Scorer
from lloss.statistics.loss_unit import IN_NO_UNIT
from lloss.tasks.train_settings import TrainSettings
from lloss.text.counts import counted
from lloss.training.cautions import cautions, how_picked, ranked
from lloss.training.checkpoint import FILE as CHECKPOINT
from lloss.training.checkpoint import Checkpoint
from lloss.training.near_duplicate_views import automatic_distance, embedding_network
from lloss.training.ranking_evidence import evidence_of, read_cross_validation


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
    if not done and project.unlabeled():
        return _first(project, say, at_most)
    last = project.cycles / f"{len(done):03d}"
    if not _resumes(folder, project, say):
        problems = project.problems()
        with problems.explaining():
            labeled = project.open_labels(problems=problems)
        known = done[-1].classes if done else ()
        project.task.note_classes(labeled.labels, problems, known)
        if done:
            note_changes_since(last, project, labeled, problems)
        note_picks_without_label(last, labeled, problems)
        for line in problems.lines():
            say(line)
        if done and done[-1].labels_sha256 == labeled.sha256:
            return Outcome(last, done[-1], False)
        for name in (EVALUATION, MODEL):  # left by a checkpoint that a user removed
            (folder / name).unlink(missing_ok=True)
        write_start(folder, project, labeled, problems)
    return Outcome(folder, _Cycle(project, folder, done, say).run(at_most), True)


def _first(project: Project, say: Callable[[str], None], at_most: bool) -> Outcome:
    """Choose the first images, unless that is done."""
    folder = project.cycles / FIRST
    if (path := folder / SUMMARY).exists():
        return Outcome(folder, read_summary(path), False)
    return Outcome(folder, choose_first(project, say, at_most), True)


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
        self.before = project.cycles / f"{len(done):03d}" if done else None
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
        pool = self.project.open_pool()
        tested = self.project.test_ids(pool, self.held_out, self.problems)
        labeled = {item.id for item in self.labeled.items}
        unlabeled = SubsetPool(pool, tested | labeled)
        refuse_too_few(self.project, unlabeled, at_most)
        self._say_notes()
        model = CycleModel(self.project, self.folder, self.problems, self.say)
        checkpoint = model.train(self.training, self.held_out, self.held_back, self.before)
        if self.before:
            settings = self._settings_of(self.before)
            note_training(settings, checkpoint.settings.as_dict(), self.problems)
        evaluation = model.evaluate(checkpoint, self.held_out)
        self._say_notes()
        model.export(checkpoint, unlabeled)
        counts = self._score(pool, tested if self.start.scores_labeled else tested | labeled)
        payoff = self._payoff()
        distance = self._distance(checkpoint)
        picks = self._pick(evaluation, payoff, distance, at_most)
        selection = picks.selection
        tied = tie_note(self.scores.opened(), selection).removeprefix("warning: ")
        better = False if tied else ranked(self._ranking(evaluation))
        column = "number" if better is False else "rank"
        write_selection(selection, self.folder / SELECTED, place=column)
        summary = self._with_trust(
            self._summary(checkpoint, evaluation, picks, tied, better, counts), picks, payoff
        )
        shown = self._model(checkpoint, selection)
        write_task_lists(self.project, self.folder, selection, pool, shown, self.say)
        how, why = how_picked(selection, tied, better), picks.choice.reason
        how += f" {why[:1].upper()}{why[1:]}." if why else ""
        self._report(summary, checkpoint.settings, selection, how, pool, shown)
        write_json(self.folder / SUMMARY, asdict(summary))
        return summary

    def _summary(
        self,
        checkpoint: Checkpoint,
        evaluation: dict[str, Any] | None,
        picks: CyclePicks,
        tied: str,
        better: bool | None,
        counts: dict[str, Any],
    ) -> Summary:
        warnings = self._warnings(evaluation, picks.selection, tied)
        notes = [*self.start.notes, *self.problems.lines(), *warnings]
        return Summary(
            cycle=self.number,
            labeled=len(self.training),
            selected=len(picks.selection),
            classes=self.task.summarize(self.training.labels),
            labels_sha256=self.labeled.sha256,
            evaluation=evaluation,
            cross_validation=read_cross_validation(self.folder),
            metric_name=self.task.metric,
            left_out=self.start.left_out + len(self.problems.broken),
            held_back=self.held_back,
            precision=read_manifest(self.folder / MODEL).precision,
            ranked=better,
            choice=asdict(picks.choice),
            warnings=warnings,
            training=checkpoint.settings.as_dict(),
            notes=list(dict.fromkeys(notes)),
            **counts,
        )

    def _with_trust(self, summary: Summary, picks: CyclePicks, payoff: Payoff | None) -> Summary:
        """Add whether to go on as before, and say it."""
        cycles, agreement = [*self.done, summary], None
        if self.before:
            labeled = {item.id for item in self.labeled.items}
            agreement = compare_predictions(self.folder, self.before, labeled)
        trust = TrustFigures(
            payoff=payoff,
            agreement=agreement,
            gain=gain_of(cycles, summary.selected),
            duplicates=picks.selection.duplicates,
            distance=picks.selection.settings.min_distance,
            monitored=picks.random,
        )
        classes = read_manifest(self.folder / MODEL).classes
        lines = [*remarks_on(picks.selection, classes), *trust_lines(trust, cycles)]
        for line in lines:
            self.say(line)
        return replace(summary, trust=trust.as_dict(), trust_lines=lines)

    def _settings_of(self, before: Path) -> dict[str, Any]:
        """The settings of the cycle before; of earlier versions those of its start."""
        with contextlib.suppress(ProjectError):
            given = read_start(before, self.project).project.train
            known = {k: v for k, v in given.as_dict().items() if k not in given.undecided}
            return self.done[-1].training or known  # how it decided the others is not known
        return {}

    def _score(self, pool: Pool, excluded: set[str]) -> dict[str, Any]:
        self.say(f"score the images of {pool.uri}")
        with Scorer(self.folder / MODEL) as scorer:
            report = score_pool(scorer, pool, self.scores.path, exclude=excluded)
        self.problems.note(pool.remark())
        self._say_notes()
        if report.skipped:
            where = self.scores.path / "skipped.parquet"
            self.say(f"{counted(report.skipped, 'image')} cannot be read, see {where}")
        return {"scored": len(self._losses()), "skipped": report.skipped}

    def _losses(self) -> NDArray[np.float32]:
        return self.scores.column("loss", without={item.id for item in self.labeled.items})

    def _payoff(self) -> Payoff | None:
        """Measure the picks of the cycle before."""
        if self.before is None:
            return None
        return measure_payoff(self.before, self.done[-1], self.labeled, self.problems)

    def _distance(self, checkpoint: Checkpoint) -> float:
        """Measure how near labeled images are to changed copies of themselves, if asked for."""
        if not self.project.measures_distance:
            return 0.0
        network = embedding_network(checkpoint, usual_embedding(self.scores))
        taken = len(self.labeled) + self.project.k
        return automatic_distance(network, checkpoint.settings, self.labeled.items, taken)

    def _ranking(self, evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
        """The figures that say how scores rank."""
        return ranking_of(evaluation, read_cross_validation(self.folder))

    def _pick(
        self,
        evaluation: dict[str, Any] | None,
        payoff: Payoff | None,
        distance: float,
        at_most: bool,
    ) -> CyclePicks:
        figures = self._ranking(evaluation)
        lift = lift_of_rounds(self.done, payoff)
        evidence = evidence_of(figures, len(self.labeled), self.task.has_entropy, **lift)
        evidence = replace(evidence, least=self.task.chooses_from)
        # K comes from lloss.toml as it is now, so that a K that is too large can be corrected.
        # Exclude labels added since the start of the cycle as well.
        labeled = self.project.open_labels(problems=Problems(skip=True))
        ids = {item.id for item in labeled.items}
        scores = self.scores.opened()
        picks = pick_images(self.project, self.number, scores, ids, evidence, at_most, distance)
        self.problems.note(distance_note(distance, picks.selection))
        self._say_notes()
        by = f" by {picks.choice.by}" if picks.choice.by else ""
        why = f": {picks.choice.reason}" if picks.choice.reason else ""
        self.say(
            f"select {counted(len(picks.selection), 'image')}, {picks.choice.strategy}{by}{why}"
        )
        return picks

    def _warnings(
        self, evaluation: dict[str, Any] | None, selection: Selection, tied: str
    ) -> list[str]:
        warnings = []
        if figures := evaluation or read_cross_validation(self.folder):
            others = self._ranking(evaluation) != figures
            shown = {**figures, "head": None} if others else figures
            warnings = cautions(shown, self.task.metric)
        warnings += filter(None, [tied, selection.collapse()])
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
        model: PickModel,
    ) -> None:
        manifest = read_manifest(self.folder / MODEL)
        report = Report(
            project=self.project.root.resolve().name,
            task=settings.task,
            model=settings.model,
            metric=self.task.metric_title,
            cycles=[*self.done, summary],
            selected_how=how,
            losses=self._losses(),
            picks=describe_picks(self._with_losses(selection), pool, model, manifest.image),
            provenance={
                "checkpoint": str(manifest.provenance.get("checkpoint_sha256", "")),
                "labels": summary.labels_sha256,
                "head": f"{settings.head_loss}, weight {settings.head_weight:g}",
                "training": training_in_words(settings),
                "precision": manifest.precision,
            },
            counted=self.task.counted,
            unit=manifest.unit or IN_NO_UNIT,
        )
        write_report(report, self.folder / REPORT)

    def _with_losses(self, selection: Selection) -> Selection:
        """The same with the predicted losses as scores, whatever the picks were chosen by."""
        found: dict[str, float] = {}
        for batch in self.scores.opened().scan(["id", "loss"], selection.ids):
            found |= zip(batch["id"].to_pylist(), batch["loss"].to_pylist())
        return replace(selection, scores=np.array([found[id] for id in selection.ids], np.float32))

    def _say_notes(self) -> None:
        for line in self.problems.notes:
            self.say(line)
