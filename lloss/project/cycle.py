"""One turn of the loop: train → evaluate → export → score → select → report.

::

    cycles/001/
      cycle.json, labels.*         what the cycle was begun with
      checkpoint.pt, metrics.jsonl
      evaluation.json              when there are held-out images
      model.onnx, scores/
      selected.csv, report.html
      summary.json                 written last: the cycle is complete

Every step writes under its final name only what is whole, so a cycle that was interrupted goes on
at the first step whose file is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import DivergedError, InterruptedRunError, LabelError, ProjectError
from lloss.export.export_model import export_artifact
from lloss.export.pool_sample import ReferenceSample
from lloss.files import sweep, write_json
from lloss.manifest import read_manifest
from lloss.pools import Pool
from lloss.project.changes import digests, note_changes
from lloss.project.project import FILE, Project
from lloss.project.report import ReportData, write_report
from lloss.project.selected_images import picks_of
from lloss.project.summary import SUMMARY, Summary, history
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection, select
from lloss.selection.selection_file import write_selection
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.scorer import Scorer
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import FILE as CHECKPOINT
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.reliability import cautions, how_picked, measured, ranked, ties
from lloss.training.run import train

BEGUN, EVALUATION, MODEL = "cycle.json", "evaluation.json", "model.onnx"
SELECTED, REPORT = "selected.csv", "report.html"


@dataclass(frozen=True)
class Outcome:
    """What ``lloss next`` came to."""

    folder: Path
    summary: Summary
    fresh: bool
    """False when there were no new labels and nothing was done."""


def next_cycle(
    project: Project, say: Callable[[str], None] = lambda _: None, at_most: bool = False
) -> Outcome:
    """Finish the cycle that was interrupted, or run one on the labels there are now.

    Args:
        project: of a folder.
        say: told of each step in a line.
        at_most: select what is left when that is fewer than K.

    Raises:
        LlossError: whatever a step says; the cycle goes on from there when it is mended.
    """
    say = _once(say)
    done = history(project)
    folder = project.cycles / f"{len(done) + 1:03d}"
    if not _goes_on(folder, project, say):
        problems = project.problems()
        with problems.explaining():
            labeled = project.open_labels(problems=problems)
        project.note_classes(labeled, problems, done[-1].classes if done else ())
        if done:
            _note_changes(project, labeled, f"{len(done):03d}", problems)
        for line in problems.lines():
            say(line)
        if done and done[-1].labels_sha256 == labeled.sha256:
            return Outcome(project.cycles / f"{len(done):03d}", done[-1], False)
        _begin(folder, project, labeled, problems)
    walk = _Walk(project, folder, done, say)
    return Outcome(folder, walk.through(at_most), True)


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Say no line a second time: several steps read the same labels and the same pool."""
    said: set[str] = set()

    def say_new(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_new


def _goes_on(folder: Path, project: Project, say: Callable[[str], None]) -> bool:
    """Whether an interrupted cycle is to be finished as it was begun.

    Until there is a checkpoint nothing is lost by beginning anew, with what was mended since.
    """
    if not ((folder / BEGUN).exists() and (folder / CHECKPOINT).exists()):
        return False
    sweep(folder)
    if _as_begun(folder, project) == project:
        say(f"go on with cycle {folder.name}, which was interrupted")
        return True
    if load_checkpoint(folder).finished:
        say(f"go on with cycle {folder.name}; the changed settings count from the next one")
        return True
    say(f"the settings changed: cycle {folder.name} trains anew")
    (folder / CHECKPOINT).unlink()
    return False


def _as_begun(folder: Path, project: Project) -> Project:
    """The project with the settings that the cycle was begun with."""
    path = folder / BEGUN
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = TrainSettings.from_dict(content["train"], str(path))
        return replace(project, train=settings, **content["project"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProjectError(f"{path}: is damaged; remove the cycle to run it again") from error


def _begin(folder: Path, project: Project, labeled: LabeledSet, problems: Problems) -> None:
    """Write down what the cycle is of: the labels may grow while it runs."""
    for name in (EVALUATION, MODEL):  # of a checkpoint that somebody removed
        (folder / name).unlink(missing_ok=True)
    rows = sorted(zip((item.id for item in labeled.items), labeled.labels), key=lambda row: row[0])
    project.task.write_labels(dict(rows), folder / project.task.labels_file)
    kept = {name: getattr(project, name) for name in _KEPT}
    begun: dict[str, Any] = {"train": project.train.as_dict(), "project": kept}
    begun |= {"left_out": len(problems.found), "notes": problems.lines()}
    begun["images"] = digests(labeled)
    write_json(folder / BEGUN, begun)


def _note_changes(project: Project, labeled: LabeledSet, cycle: str, problems: Problems) -> None:
    """Note what became of the labels and images of the last cycle."""
    folder = project.cycles / cycle
    try:
        content = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
        before = project.task.read_labels(folder / project.task.labels_file, Problems(skip=True))
    except (OSError, ValueError, LabelError):
        return  # an earlier cycle is no condition of a new one
    note_changes(before, content.get("images", {}), labeled, cycle, problems)


_KEPT = ("pool", "holdout", "test", "test_labels", "warm_start", "skip_bad", "empty")
"""Besides the training settings, what a cycle keeps to the end as it was begun."""


class _Walk:
    """The steps of one cycle, each skipped when its file is there."""

    def __init__(
        self, project: Project, folder: Path, done: list[Summary], say: Callable[[str], None]
    ) -> None:
        self.project = _as_begun(folder, project)
        self.folder, self.done, self._say = folder, done, say
        self._said: set[str] = set()
        self.number = len(done) + 1
        self.task = self.project.task
        self.problems = self.project.problems()
        snapshot = folder / self.task.labels_file
        self.labeled = self.project.open_labels(snapshot, self.problems)
        self.training, self.held_out = self.project.split(self.labeled, self.problems)
        self._say_notes()
        self.settings = self.project.train
        self.metric = self.task.metric
        self._tested: set[str] | None = None

    def through(self, at_most: bool) -> Summary:
        """All of them."""
        checkpoint = self._train()
        evaluation = self._evaluate(checkpoint)
        pool = self.project.open_pool()
        self._export(checkpoint, pool)
        counts = self._score(pool)
        selection = self._select(at_most)
        tied = ties(ScoresFolder(self.folder / "scores").column("loss"), selection)
        better = False if tied else ranked(evaluation)
        place = "number" if better is False else "rank"  # as the report calls it
        write_selection(selection, self.folder / SELECTED, place=place)
        warnings = cautions(evaluation, self.metric) if evaluation else []
        warnings += [f"{tied}: the picks are in the order of ids, not ranked"] if tied else []
        if unusable := selection.unusable():
            warnings.append(f"images that could not be selected: {', '.join(unusable)}")
        for line in warnings:
            self.say(f"warning: {line}")
        warnings += self.problems.doubts  # which were said when it was trained
        begun = json.loads((self.folder / BEGUN).read_text(encoding="utf-8"))
        summary = Summary(
            cycle=self.number,
            labeled=len(self.training),
            selected=len(selection),
            classes=self.task.summarize(self.training.labels),
            labels_sha256=self.labeled.sha256,
            evaluation=evaluation,
            metric_name=self.metric,
            left_out=int(begun.get("left_out", 0)) + len(self.problems.found),
            held_back=self._held_back(),
            ranked=better,
            warnings=warnings,
            notes=list(dict.fromkeys([*begun.get("notes", []), *self.problems.lines(), *warnings])),
            **counts,
        )
        how = how_picked(selection, tied, better)
        self._report(summary, selection, how, pool, checkpoint)
        write_json(self.folder / SUMMARY, asdict(summary))
        return summary

    def _held_back(self) -> int:
        """Labels kept for measuring; 0 where there is a test set."""
        apart = self.project.test or self.project.test_labels
        return 0 if apart or self.held_out is None else len(self.held_out)

    def _train(self) -> Checkpoint:
        before = self.project.cycles / f"{self.number - 1:03d}"
        warm = before if self.project.warm_start and self.number > 1 else None
        count, classes = len(self.training), len(self.task.classes(self.training.labels))
        back = self._held_back()
        held = f" ({back} of {len(self.labeled)} are held out)" if back else ""
        self.say(
            f"train {self.settings.model} on {count} labeled images of {classes} classes{held}"
        )
        try:
            return train(
                self.training,
                self.settings,
                self.folder,
                resume=True,
                warm_start=warm,
                problems=self.problems,
                say=self.say,
            )
        except InterruptedRunError as error:
            raise InterruptedRunError(
                f"cycle {self.number:03d} was stopped in training; run the same command again, "
                "it goes on from there"
            ) from error
        except DivergedError as error:
            raise DivergedError(
                f"{error}. Change the settings under [train] in {self.project.root / FILE} and run "
                "the same command again"
            ) from error

    def _evaluate(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        if self.held_out is None:
            self.say("no held-out images, so nothing is measured (see test and holdout)")
            return None
        path = self.folder / EVALUATION
        if not path.exists():
            found = evaluate_checkpoint(checkpoint, self.held_out, self.problems)
            write_json(path, found.as_dict())
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.say(
            f"measure on {figures['images']} held-out images: {measured(figures, self.metric)}"
        )
        for line in figures.get("missed", []):
            self.say(line)
            self.problems.note(line)
        return figures

    def _export(self, checkpoint: Checkpoint, pool: Pool) -> None:
        if (self.folder / MODEL).exists():
            return
        self.say(f"export {self.folder / MODEL}")
        reference = None
        if not pool.streamed:  # of which a sample costs as much as the whole
            reference = ReferenceSample(pool=pool, exclude=self._taken(pool), required=False)
        try:
            export_artifact(checkpoint, self.folder / MODEL, reference=reference)
        except DivergedError as error:  # else the finished training is gone on with for good
            raise DivergedError(
                f"{error}. Change the settings under [train] in {self.project.root / FILE}, remove "
                f"{self.folder} and run the same command again"
            ) from error

    def say(self, line: str) -> None:
        """Say a line, once: notes of one thing may come from several steps."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _say_notes(self) -> None:
        for line in self.problems.notes:
            self.say(line)

    def _taken(self, pool: Pool) -> set[str]:
        """What is not to be scored."""
        if self._tested is None:
            self._tested = self.project.tested(pool, self.held_out, self.problems)
            self._say_notes()
        return self._tested | {item.id for item in self.labeled.items}

    def _score(self, pool: Pool) -> dict[str, int]:
        taken = self._taken(pool)
        self.say(f"score what is unlabeled of {pool.uri}")
        with Scorer(self.folder / MODEL) as scorer:
            report = score_pool(scorer, pool, self.folder / "scores", exclude=taken)
        self.problems.note(pool.remark())
        self._say_notes()
        if not report.scored:
            raise LabelError(f"{pool.uri}: every image is labeled, none is left to select")
        if report.skipped:
            where = self.folder / "scores" / "skipped.parquet"
            self.say(f"{report.skipped} images cannot be read, see {where}")
        return {"scored": report.scored, "skipped": report.skipped}

    def _select(self, at_most: bool) -> Selection:
        # Read live from lloss.toml, so that a K that is too large can be mended there.
        settings = self.project.selection(self.number, at_most)
        # Labels that came in since the cycle was begun: nobody is asked twice.
        known = self.project.labeled_ids()
        scores = ScoresFolder(self.folder / "scores").opened()
        return select(scores, settings, known | self._unwritable(scores))

    def _unwritable(self, scores: ScoresFolder) -> set[str]:
        """Ids that no line of CSV can hold, neither the selection's nor the labels'."""
        found = {
            str(id)
            for batch in scores.scan(["id"])
            for id in batch["id"].filter(pc.match_substring_regex(batch["id"], r"[\r\n\x00]"))
        }
        if found:
            self.say(
                f"{len(found)} images are not selected, as a line of CSV cannot hold their ids "
                f"({min(found)!r}, for example): rename them in the pool"
            )
        return found

    def _report(
        self,
        summary: Summary,
        selection: Selection,
        how: str,
        pool: Pool,
        checkpoint: Checkpoint,
    ) -> None:
        scores = ScoresFolder(self.folder / "scores")
        manifest = read_manifest(self.folder / MODEL)
        data = ReportData(
            project=self.project.root.resolve().name,
            cycle=self.number,
            task=self.settings.task,
            model=self.settings.model,
            metric_name=summary.metric_name,
            held_out=len(self.held_out) if self.held_out else 0,
            strategy=how,
            ranked=summary.ranked,
            warnings=summary.warnings,
            notes=[line for line in summary.notes if line not in summary.warnings],
            pool=summary.scored,
            skipped=summary.skipped,
            labeled=summary.labeled,
            held_back=summary.held_back,
            classes=summary.classes,
            counted=self.task.counted,
            losses=scores.column("loss"),
            picks=picks_of(selection, scores, pool, manifest, checkpoint),
            history=[*(s.point() for s in self.done), summary.point()],
            provenance={
                "checkpoint": str(manifest.provenance.get("checkpoint_sha256", "")),
                "labels": summary.labels_sha256,
                "head": f"{self.settings.head_loss}, weight {self.settings.head_weight:g}",
                "training": f"{self.settings.epochs} epochs, seed {self.settings.seed}",
            },
        )
        write_report(data, self.folder / REPORT)
