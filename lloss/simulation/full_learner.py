"""The slow learner: full training of the whole network, as ``lloss train`` does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import SettingsError
from lloss.manifest import EMBEDDING, PRETRAINED_EMBEDDING
from lloss.pools import Item
from lloss.selection.automatic import Evidence
from lloss.simulation.labeled_data import DataOptions, SimulatedData
from lloss.simulation.learner import Columns, Measured, class_figures, ranking
from lloss.simulation.methods import BALD, PROBABILITIES, STOP, Method
from lloss.simulation.scenarios import TrialPool
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.decisions import decide
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import TrainingData, load_examples


@dataclass(frozen=True)
class FullMaker:
    """Makes a :class:`.FullLearner` in any process, which opens the data itself."""

    options: DataOptions
    settings: TrainSettings
    device: str

    def learner(self) -> FullLearner:
        """Open the data and decode the test set."""
        return FullLearner(self.options.open(), self.settings, self.device)


class FullLearner:
    """Trains a network from the first weights on at each cycle."""

    def __init__(self, data: SimulatedData, settings: TrainSettings, device: str) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.test = _decoded(data.test, data.names, settings, "test")
        self.pool = self.test
        self._open: tuple[list[str], list[Any]] = [], []

    def open(self, pool: TrialPool) -> None:
        if (pool.ids, pool.labels) == self._open:
            return  # another method of the same trial
        items = self.data.items(pool.rows.tolist(), pool.variants.tolist())
        labeled = LabeledSet(items, pool.labels, self.data.data.origin)
        self.pool = _decoded(labeled, self.data.names, self.settings, "pool")
        self._open = pool.ids, pool.labels

    def train(
        self, rows: NDArray[np.int64], labels: Sequence[Any], method: Method, seed: int
    ) -> FullModel:
        data = self.pool.take(rows)
        settings = self._decided(replace(method.settings(self.settings), seed=seed), data)
        if method.joint:
            settings = replace(settings, gradient_stop=round(STOP * settings.epochs))
        trainer = Trainer(settings, data, self.device)
        while not trainer.finished:
            trainer.advance()
        return FullModel(self, trainer, len(rows))

    def _decided(self, settings: TrainSettings, data: TrainingData) -> TrainSettings:
        rows = range(len(data.images))
        items = [Item(str(row), partial(data.images.__getitem__, row)) for row in rows]
        labeled = LabeledSet(items, list(data.targets), "labeled images")
        return decide(get_task(settings.task), settings, labeled).settings


class FullModel:
    """The network of one cycle."""

    def __init__(self, learner: FullLearner, trainer: Trainer, labeled: int) -> None:
        self._learner, self._model, self._settings = learner, trainer.model, trainer.settings
        self._labeled = labeled
        self._test: Columns = {}

    def measure(self) -> Measured:
        learner, model = self._learner, self._model
        task, data = learner.data.task, learner.test
        meter = model.objective.meter(learner.data.test.labels)
        parts: dict[str, list[NDArray[Any]]] = {}
        for rows, forward in predict(model, self._settings, data.images):
            targets = list(data.targets[rows])
            meter.update(forward.output, targets)
            with torch.no_grad():
                collated = task.collate(targets).to(forward.embedding.device)
                found = {
                    "true": model.objective.loss_per_image(forward.output, collated),
                    "predicted": forward.loss,
                    **model.objective.outputs(forward.output),
                }
            for name, value in found.items():
                if value is not None:
                    parts.setdefault(name, []).append(value.float().cpu().numpy())
        self._test = columns = {name: np.concatenate(values) for name, values in parts.items()}
        figures = meter.figures()
        if task.name == "classification":
            predicted, true = columns["prediction"].astype(np.int64), np.asarray(data.targets)
            figures = {**figures, **class_figures(predicted, true, learner.data.names)}
        loss = columns["true"]
        return Measured(
            figures,
            ranking(columns["predicted"], loss) if "predicted" in columns else None,
            ranking(columns["entropy"], loss),
        )

    def columns(self, wanted: Sequence[str]) -> Columns:
        found = scores_of(self._model, self._settings, self._learner.pool.images, wanted)
        if BALD in wanted:
            found[BALD] = self._bald()
        return found

    def outputs(self) -> NDArray[np.float32]:
        outputs = []
        for _, forward in predict(self._model, self._settings, self._learner.pool.images):
            if not isinstance(forward.output, torch.Tensor):
                raise SettingsError(
                    f"method 'tod': compares outputs that are one tensor, and {self._settings.task}"
                    " has others; leave it out"
                )
            outputs.append(forward.output.float().cpu().numpy())
        return np.concatenate(outputs)

    def evidence(self) -> Evidence:
        """On the test set, as in a project that has one."""
        if not self._test:
            self.measure()
        found, task = self._test, self._learner.data.task
        entropy = found["entropy"] if task.has_entropy else None
        return Evidence.measured(self._labeled, found["true"], found["predicted"], entropy)

    def losses(self, rows: NDArray[np.int64], labels: Sequence[Any]) -> NDArray[np.float32]:
        model, task = self._model, self._learner.data.task
        data, found = self._learner.pool.take(rows), [np.empty(0, np.float32)]
        for some, forward in predict(model, self._settings, data.images):
            targets = task.collate(list(data.targets[some])).to(forward.embedding.device)
            with torch.no_grad():
                loss = model.objective.loss_per_image(forward.output, targets)
            found.append(loss.float().cpu().numpy())
        return np.concatenate(found)

    def _bald(self) -> NDArray[np.float32]:
        raise SettingsError(
            "method 'bald': full training has no dropout to draw by yet; choose --frozen, or leave "
            "it out"
        )


def scores_of(
    model: Any, settings: TrainSettings, images: NDArray[np.uint8], wanted: Sequence[str] = ()
) -> Columns:
    """Compute what the exported graph would give for images: loss, scores, embeddings."""
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for _, forward in predict(model, settings, images):
        with torch.no_grad():
            scores = model.objective.outputs(forward.output)
        found = {EMBEDDING: forward.embedding, "loss": forward.loss}
        found.update({name: value for name, value in scores.items() if value.ndim == 1})
        if PROBABILITIES in wanted:
            if settings.task != "classification":
                raise SettingsError(
                    f"method 'badge': reads the probabilities of classes, which {settings.task} "
                    "has not for an image; use loss-badge"
                )
            found[PROBABILITIES] = forward.output.softmax(1)
        for name, value in found.items():
            if value is not None:
                parts.setdefault(name, []).append(value.float().cpu().numpy())
    if model.pretrained is not None:
        forwards = predict(model.pretrained, settings, images)
        parts[PRETRAINED_EMBEDDING] = [f.embedding.cpu().numpy() for _, f in forwards]
    return {name: np.concatenate(part) for name, part in parts.items()}


def _decoded(
    labeled: LabeledSet, names: Sequence[str], settings: TrainSettings, what: str
) -> TrainingData:
    data, _ = load_examples(labeled, names, settings, Problems(remedy=""), what=what)
    return data
