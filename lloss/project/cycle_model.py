"""The model of a cycle: trained, measured and exported, each step skipped if its file exists."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import DivergedError, InterruptedRunError
from lloss.export.automatic_precision import AUTO, AutomaticPrecision
from lloss.export.export_model import export_onnx
from lloss.export.pool_sample import ReferenceSample
from lloss.files import write_json
from lloss.pools import Pool
from lloss.project.project import FILE, Project
from lloss.text.counts import counted
from lloss.training.cautions import measured
from lloss.training.checkpoint import Checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.holdout import MEASURABLE
from lloss.training.ranking_evidence import read_cross_validation
from lloss.training.run import train

EVALUATION, MODEL = "evaluation.json", "model.onnx"

WORTH_JUDGING = 50_000
"""Images to score from which int8 of a small network saves more time than its comparison takes."""


@dataclass(frozen=True)
class CycleModel:
    """The steps of one cycle that make its model.

    Attributes:
        project: with the settings of the cycle's start.
        folder: of the cycle.
        problems: of labels and images.
        say: receives a line on each step.
    """

    project: Project
    folder: Path
    problems: Problems
    say: Callable[[str], None]

    def train(
        self,
        training: LabeledSet,
        held_out: LabeledSet | None,
        held_back: int,
        before: Path | None,
    ) -> Checkpoint:
        """Train on labeled images, or finish that, and cross-validate where too few are held out.

        ``held_back`` of the labels are kept to measure on; ``before`` is the folder of the cycle
        before, whose weights a warm start begins with.
        """
        settings, classes = self.project.train, self.project.task.classes(training.labels)
        measured = held_out is not None and len(held_out) >= MEASURABLE
        if settings.folds < 0 and measured:
            settings = dataclasses.replace(settings, folds=0)
        labels = len(training) + held_back
        of = f" ({held_back} of {labels} held out)" if held_back else ""
        self.say(
            f"train {settings.model} on {counted(len(training), 'labeled image')} of "
            f"{counted(len(classes), 'class', 'classes')}{of}"
        )
        with self._remedy():
            checkpoint = train(
                training,
                settings,
                self.folder,
                resume=True,
                warm_start=before if self.project.warm_start else None,
                unmeasured=not measured,
                known=before,
                problems=self.problems,
                say=self.say,
            )
        for line in (read_cross_validation(self.folder) or {}).get("notes", []):
            self.problems.note(line)
        return checkpoint

    def evaluate(
        self, checkpoint: Checkpoint, held_out: LabeledSet | None
    ) -> dict[str, Any] | None:
        """Measure on the held-out images: figures as of :meth:`.Evaluation.as_dict`."""
        if held_out is None:
            if not read_cross_validation(self.folder):
                what = "neither the model nor its ranking is measured"
                self.say(f"no held-out images: {what} (see test)")
            return None
        path = self.folder / EVALUATION
        if not path.exists():
            evaluation = evaluate_checkpoint(checkpoint, held_out, self.problems)
            write_json(path, evaluation.as_dict())
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        result = measured(figures, self.project.task.metric)
        self.say(f"measure on {counted(figures['images'], 'held-out image')}: {result}")
        for line in figures.get("missed", []):
            self.say(line)
            self.problems.note(line)
        return figures

    def export(self, checkpoint: Checkpoint, unlabeled: Pool) -> None:
        """Export ``model.onnx``, for the images of ``unlabeled`` to be scored by."""
        path, automatic = self.folder / MODEL, self.project.precision == AUTO
        if path.exists():
            return
        self.say(f"export {path}")
        reduction = reference = None
        if unlabeled.streamed:  # a sample of a stream costs as much as all of it
            if automatic:
                where = unlabeled.uri
                self.say(f"precision: fp32; {where} is read from its start for every comparison")
        elif automatic:
            reduction = AutomaticPrecision(pool=unlabeled, least_images=WORTH_JUDGING)
        else:
            reference = ReferenceSample(pool=unlabeled, required=False)
        with self._remedy():
            export_onnx(checkpoint, path, reduction, self.say, reference)

    @contextlib.contextmanager
    def _remedy(self) -> Iterator[None]:
        """Add to an error what to do in a project."""
        try:
            yield
        except InterruptedRunError as error:
            raise InterruptedRunError(
                f"cycle {self.folder.name} was stopped in training; run the same command again to "
                "resume it"
            ) from error
        except DivergedError as error:
            raise DivergedError(
                f"{error}. Change the settings under [train] in {self.project.root / FILE}, "
                f"remove {self.folder} and run the same command again"
            ) from error
