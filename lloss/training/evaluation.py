"""A trained network on held-out labeled images: its metric, and how well the head ranks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.image_overlap import trained_on, trained_on_note
from lloss.data.labeled_set import LabeledSet
from lloss.modeling.network import TappedNetwork
from lloss.modeling.objective import Meter
from lloss.runtime.torchrun_process import TorchrunProcess
from lloss.statistics.clusters import among
from lloss.statistics.confidence_intervals import CONFIDENCE, Clusters, Floats, bootstrap
from lloss.statistics.loss_unit import LossUnit, fit_unit
from lloss.statistics.ranking_metrics import RankingFigures, ranking_figures, ranking_intervals
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.first_names import first_names
from lloss.text.similar_names import similar_note
from lloss.training.cautions import cautions, ranked
from lloss.training.checkpoint import Checkpoint
from lloss.training.holdout import refuse_unknown
from lloss.training.process_group import Processes
from lloss.training.ranking_evidence import comparison, finite
from lloss.training.scenes import NO_SCENES, Scenes, scenes_of_evaluation
from lloss.training.shared_jobs import send_evaluation, shared_predict
from lloss.training.torchrun import called
from lloss.training.trainer import device_of, predict
from lloss.training.training_data import TrainingData, load_examples


@dataclass(frozen=True)
class Evaluation:
    """Figures on N held-out images."""

    images: int  # N
    unseen: int  # images that show only unknown classes: missed, without a loss and so not ranked
    metric_name: str  # the task's, such as `accuracy`
    metric: float  # its value, 0 to 1
    figures: dict[str, float]  # the other figures of the task's meter, by name
    notes: list[str]  # conditions of the figures that must be named with them
    mean_loss: float  # of the target network
    head: RankingFigures | None  # how the predicted loss ranks; None for a network without a head
    entropy: RankingFigures  # how the entropy of the same network ranks
    true_loss: NDArray[np.float32]  # float [N - unseen]
    # What the head gives, in no unit: float [N - unseen], or None
    predicted_loss: NDArray[np.float32] | None
    # The 95 % intervals by the figures' names, of the ranking under `head` and `entropy`
    intervals: dict[str, Any] = field(default_factory=dict)
    comparison: dict[str, Any] = field(default_factory=dict)  # of both, see `comparison`
    missed: list[str] = field(default_factory=list)  # whatever the network answers, in lines
    cut_off: dict[str, Any] = field(default_factory=dict)  # `CroppedShare.as_dict`
    # How what the head gives becomes a loss, fitted on the images that were not trained on
    unit: LossUnit | None = None
    checkpoint_sha256: str = ""  # of the file that was measured; "" if it was not of a file
    folds: int = 1  # of a cross-validation, whose images were each held out from a model of its own
    scenes: Scenes = NO_SCENES  # near-duplicates among the images

    def as_dict(self) -> dict[str, Any]:
        """Return the figures without the arrays, for JSON, with warnings."""
        figures = {
            "images": self.images,
            **({"folds": self.folds} if self.folds > 1 else {}),
            "unseen": self.unseen,
            **finite({self.metric_name: self.metric}),
            **({"figures": finite(self.figures)} if self.figures else {}),
            **({"notes": self.notes} if self.notes else {}),
            **finite({"mean_loss": self.mean_loss}),
            "head": finite(asdict(self.head)) if self.head else None,
            "entropy": finite(asdict(self.entropy)),
            "confidence": CONFIDENCE,
            "intervals": finite(self.intervals),
            **({"comparison": finite(self.comparison)} if self.comparison else {}),
            **({"missed": self.missed} if self.missed else {}),
            **({"cut_off": self.cut_off} if self.cut_off else {}),
            **self.scenes.as_dict(),
            **({"unit": json.loads(msgspec.json.encode(self.unit))} if self.unit else {}),
            "checkpoint_sha256": self.checkpoint_sha256,
        }
        warnings = cautions(figures, self.metric_name)
        return {**figures, "ranked": ranked(figures), "warnings": warnings}


def measure(
    model: TappedNetwork,
    settings: TrainSettings,
    data: TrainingData,
    labels: Sequence[Any] = (),
    seen: NDArray[np.bool_] | None = None,
    processes: Processes | None = None,
    scenes: Scenes = NO_SCENES,
) -> Evaluation:
    """Evaluate on held-out images; without ``labels`` all are of the network's classes.

    ``seen`` [N] are images that were trained on after all: the loss's unit is fitted without them.
    ``processes`` share the batches; this is the leading one, and has the figures. Intervals count
    ``scenes``.
    """
    found = Measurement(settings, data, labels)
    found.add(model, np.arange(len(data)), processes)
    evaluation = found.evaluation(seen, clusters=scenes.clusters)
    return replace(evaluation, notes=[*evaluation.notes, *scenes.lines()], scenes=scenes)


class Measurement:
    """What networks make of labeled images that they were not trained on."""

    def __init__(
        self, settings: TrainSettings, data: TrainingData, labels: Sequence[Any] = ()
    ) -> None:
        """``labels`` are those of the N images of ``data``; without any, see :func:`measure`."""
        self.settings, self.data, self.labels = settings, data, labels
        self.task = get_task(settings.task)
        self._meter: Meter | None = None
        self._columns: dict[str, NDArray[np.float32]] = {}
        self._order: list[NDArray[np.int64]] = []  # rows, as the meter got them
        self._unit = ""

    def add(
        self, model: TappedNetwork, rows: NDArray[np.int64], processes: Processes | None = None
    ) -> None:
        """Run a network on the images of these rows, which ``processes`` share."""
        data, objective = self.data, model.objective
        self._meter, self._unit = self._meter or objective.meter(self.labels), objective.loss_unit
        images = data.images if len(rows) == len(data) else data.images[rows]
        passes = predict(model, self.settings, images)
        if processes is not None:
            passes = shared_predict(processes, model, self.settings, images)
        for part, forward in passes:
            targets = [data.targets[row] for row in rows[part]]
            self._meter.update(forward.output, targets)
            self._order.append(rows[part])
            with torch.no_grad():
                collated = self.task.collate(targets).to(forward.embedding.device)
                found = {
                    "loss": objective.loss_per_image(forward.output, collated),
                    "entropy": objective.outputs(forward.output)["entropy"],
                    "predicted": forward.loss,
                }
            for name, value in found.items():
                if value is not None:
                    column = self._columns.setdefault(name, np.zeros(len(data), np.float32))
                    column[rows[part]] = value.float().cpu().numpy()

    def evaluation(
        self,
        seen: NDArray[np.bool_] | None = None,
        folds: NDArray[np.int64] | None = None,
        levels: Floats | None = None,
        clusters: Clusters = None,
    ) -> Evaluation:
        """Return the figures of all images; each must have been added.

        Args:
            seen: see :func:`measure`.
            folds: of a cross-validation [N], see :func:`.ranking_figures`.
            levels: what a prediction is above that of the model which the unit is for [N].
            clusters: of near-duplicates among the images [N]: intervals count each as one.
        """
        assert self._meter is not None, "no image was added"
        task, data, meter = self.task, self.data, self._meter
        ranked_rows = [task.has_loss(label, data.classes) for label in self.labels]
        rows = np.flatnonzero(ranked_rows) if ranked_rows else np.arange(len(data))
        columns = {name: values[rows] for name, values in self._columns.items()}
        true_loss, entropy, predicted = (
            columns.get(name) for name in ("loss", "entropy", "predicted")
        )
        assert true_loss is not None and entropy is not None
        folds = None if folds is None else folds[rows]
        unit = None
        if predicted is not None:
            new = np.ones(len(rows), bool) if seen is None else ~seen[rows]
            above = predicted if levels is None else predicted - levels[rows]
            source = "held-out images"
            if folds is not None:
                source = f"images, by {len(np.unique(folds))}-fold cross-validation"
            unseen = among(clusters, rows[new])
            unit = fit_unit(above[new], true_loss[new], self._unit, source, unseen)
        figures = meter.figures()
        cut = data.cut.line("held-out", task.cut_effect) if data.cut else ""
        return Evaluation(
            images=len(data),
            unseen=len(data) - len(rows),
            metric_name=task.metric,
            metric=figures.pop(task.metric),
            figures=figures,
            notes=meter.notes(),
            mean_loss=float(true_loss.mean()),
            head=None if predicted is None else ranking_figures(predicted, true_loss, folds=folds),
            entropy=ranking_figures(entropy, true_loss, folds=folds),
            true_loss=true_loss,
            predicted_loss=predicted,
            intervals={
                **meter.intervals(among(clusters, np.concatenate(self._order))),
                **_intervals(true_loss, predicted, entropy, folds, among(clusters, rows)),
            },
            comparison=comparison(true_loss, predicted, entropy, folds, among(clusters, rows)),
            missed=[*filter(None, [cut]), *_unknown(task.classes(self.labels), data.classes)],
            cut_off=data.cut.as_dict() if data.cut else {},
            unit=unit,
            folds=1 if folds is None else len(np.unique(folds)),
        )


def _intervals(
    loss: NDArray[np.float32],
    predicted: NDArray[np.float32] | None,
    entropy: NDArray[np.float32],
    folds: NDArray[np.int64] | None,
    clusters: Clusters,
) -> dict[str, Any]:
    def mean(weights: Floats) -> dict[str, Floats]:
        return {"mean_loss": weights @ loss / weights.sum(1)}

    scores = {"head": predicted, "entropy": entropy}
    return {
        **bootstrap(len(loss), mean, clusters),
        **{
            name: ranking_intervals(score, loss, folds=folds, clusters=clusters)
            for name, score in scores.items()
            if score is not None
        },
    }


def _unknown(shown: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return a line on classes of the labels that the network lacks; none without any."""
    unknown = [name for name in shown if name not in classes]
    if not unknown:
        return []
    return [
        f"the network does not know {len(unknown)} of the {len({*shown, *classes})} classes "
        f"({first_names(unknown)}): they count as missed"
    ]


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    labeled: LabeledSet,
    problems: Problems | None = None,
    device: str = "",
    process: TorchrunProcess | None = None,
) -> Evaluation:
    """Evaluate a run, finished or not, on labeled images; ``problems`` gets unusable ones.

    ``process`` is the leading one of several, see :mod:`lloss.training.torchrun`.
    """
    settings, task, on = checkpoint.settings, get_task(checkpoint.settings.task), device_of(device)
    classes = checkpoint.classes
    problems = problems or Problems()
    seen = trained_on(labeled.items, checkpoint.traces)
    problems.note(trained_on_note(labeled, seen))
    counts = {**dict.fromkeys(classes, 0), **task.summarize(labeled.labels)}
    similar = similar_note(counts, "classes of the network and of the labels", classes)
    problems.note(similar)
    refuse_unknown(task, labeled, classes, similar)
    data, rows = load_examples(labeled, classes, settings, problems, what="held-out")
    labels = [labeled.labels[row] for row in rows]
    run = checkpoint.path.parent if checkpoint.path else None
    scenes = scenes_of_evaluation(task, labeled.take(rows), run)
    network = checkpoint.network().to(on)
    if process is None:
        found = measure(network, settings, data, labels, seen[rows], scenes=scenes)
    else:
        with called(process, on) as processes:
            data = replace(data, images=send_evaluation(processes, checkpoint, data.images))
            found = measure(network, settings, data, labels, seen[rows], processes, scenes)
    return replace(found, checkpoint_sha256=checkpoint.sha256 if checkpoint.path else "")
