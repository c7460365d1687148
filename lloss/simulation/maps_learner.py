"""The fast learner of tasks whose labels have places: a small head on cached feature maps.

The target head is :meth:`.Task.frozen_head`, trained some hundred steps without augmentation. The
loss head learns the losses that target heads trained without the image have on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.manifest import EMBEDDING
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.modeling.objective import Objective
from lloss.selection.automatic import Evidence
from lloss.simulation.frozen_maps import MapsLayout
from lloss.simulation.learner import Columns, Measured, ranking
from lloss.simulation.methods import BALD, PROBABILITIES, TOD, Method
from lloss.simulation.scenarios import TrialPool
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_choice import HeadChoice
from lloss.training.head_training import folds_of
from lloss.training.training_data import seed_of

STEPS, BATCH, RATE = 200, 8, 6e-3
"""Of the target head, by AdamW with one cycle of its rate."""

FOLDS = 2  # Each takes a training of the target head
READ = 64  # Images that are predicted at once

OF_CLASSES = {
    PROBABILITIES: "probabilities of classes", BALD: "dropout before the last layer",
    TOD: "outputs of one size",
}  # fmt: skip
"""What columns need that heads on maps do not have."""

Read = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.float16], list[Any]]]
"""Returns features [N, width] and targets of rows and variants."""


class MapsLearner:
    """Trains heads on the maps of a trial's pool; ``test`` are features, targets and labels."""

    def __init__(
        self,
        settings: TrainSettings,
        objective: Objective,
        layout: MapsLayout,
        names: Sequence[str],
        read: Read,
        test: tuple[NDArray[np.float16], list[Any], list[Any]],
    ) -> None:
        self.settings, self.objective, self.layout = settings, objective, layout
        self.task, self.names = get_task(settings.task), tuple(names)
        self._read = read
        self.test, self.test_targets, self.test_labels = torch.from_numpy(test[0]), *test[1:]
        self.test_pooled = self._pooled(self.test)
        self.pool, self.targets = torch.empty(0), list[Any]()
        self.pooled: list[Tensor] = []

    def open(self, pool: TrialPool) -> None:
        features, self.targets = self._read(pool.rows, pool.variants)
        self.pool = torch.from_numpy(features)
        self.pooled = self._pooled(self.pool)

    def _pooled(self, features: Tensor) -> list[Tensor]:
        starts = range(0, len(features), READ)
        parts = [self.layout.pooled(features[start : start + READ]) for start in starts]
        return [torch.cat(columns) for columns in zip(*parts)]

    def train(
        self, rows: NDArray[np.int64], labels: Sequence[Any], method: Method, seed: int
    ) -> MapsModel:
        for column in method.columns:
            raise SettingsError(
                f"method {method.name!r}: needs {OF_CLASSES[column]}, which heads on the maps of a "
                "frozen network have not; leave it out, or choose --full"
            )
        return MapsModel(self, rows, method, seed)

    def fitted(self, rows: NDArray[np.int64], seed: int) -> nn.Module:
        """Train a target head on rows of the pool."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            head = self.task.frozen_head(self.layout.maps, self.names, self.settings)
        optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS + 1)
        random, order = np.random.default_rng([seed, 5]), np.empty(0, np.int64)
        head.train()
        for _ in range(STEPS):
            while len(order) < min(BATCH, len(rows)):
                order = np.append(order, random.permutation(rows))
            some, order = order[:BATCH], order[BATCH:]
            _, maps = self.layout.split(self.pool[torch.from_numpy(some)])
            targets = self.task.collate([self.targets[row] for row in some])
            with torch.enable_grad():
                loss = self.objective.loss_per_image(head(maps), targets).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        return head.eval()

    def outputs(self, head: nn.Module, features: Tensor) -> Iterator[tuple[slice, Any]]:
        """Yield rows and the head's output for them."""
        for start in range(0, len(features), READ):
            rows = slice(start, min(start + READ, len(features)))
            with torch.no_grad():
                yield rows, head(self.layout.split(features[rows])[1])


class MapsModel:
    """The heads of one cycle."""

    def __init__(
        self, learner: MapsLearner, rows: NDArray[np.int64], method: Method, seed: int
    ) -> None:
        self._learner, self._method, self._seed = learner, method, seed
        self._settings = method.settings(learner.settings)
        self._target = learner.fitted(rows, seed)
        self._folds = folds_of(len(rows), min(FOLDS, len(rows)), seed)
        self._head, self._entropy = None, np.empty(0)
        if method.head:
            cache = self._learned(rows)
            self._choice = HeadChoice(self._fresh(), cache, self._compare, seed, self._folds)
            self._head = self._choice.trained()

    def _learned(self, rows: NDArray[np.int64]) -> FeatureCache:
        """What the loss head learns of: of the paper's way, losses of images trained on."""
        learner, summary = self._learner, self._sees_summary
        losses, entropy = np.empty(len(rows), np.float32), np.empty(len(rows))
        summaries = torch.empty(len(rows), learner.objective.summary_size if summary else 0)
        parts = [np.arange(len(rows))] if self._method.joint else [
            np.flatnonzero(self._folds == fold) for fold in range(self._folds.max() + 1)
        ]  # fmt: skip
        for number, held in enumerate(parts):
            head = self._target
            if not self._method.joint:
                rest = np.setdiff1d(np.arange(len(rows)), held)
                head = learner.fitted(rows[rest], seed_of(self._seed, number))
            for some, output in learner.outputs(head, learner.pool[torch.from_numpy(rows[held])]):
                here = held[some]
                targets = learner.task.collate([learner.targets[row] for row in rows[here]])
                losses[here] = learner.objective.loss_per_image(output, targets).numpy()
                entropy[here] = learner.objective.outputs(output)["entropy"].numpy()
                if summary:
                    summaries[torch.from_numpy(here)] = learner.objective.summary(output)
        self._entropy = entropy
        inputs = [values[torch.from_numpy(rows)] for values in learner.pooled]
        inputs += [summaries] if summary else []
        return FeatureCache(inputs, torch.from_numpy(losses), len(rows))

    @property
    def _sees_summary(self) -> bool:
        return self._settings.head_summary and bool(self._learner.objective.summary_size)

    @property
    def _compare(self) -> Callable[..., Tensor]:
        return functools.partial(HEAD_LOSSES[self._settings.head_loss], xi=self._settings.xi)

    def _fresh(self) -> LossPredictionHead:
        learner = self._learner
        size = learner.objective.summary_size if self._sees_summary else 0
        return LossPredictionHead(learner.layout.channels, size, self._settings.hidden)

    def _scores(self, pooled: Sequence[Tensor], rows: slice, output: Any) -> dict[str, Tensor]:
        objective = self._learner.objective
        found = {name: v for name, v in objective.outputs(output).items() if v.ndim == 1}
        if self._head is not None:
            summary = objective.summary(output) if self._sees_summary else None
            with torch.no_grad():
                found["loss"] = self._head([values[rows] for values in pooled], summary)
        return found

    def measure(self) -> Measured:
        learner = self._learner
        meter, parts = learner.objective.meter(learner.test_labels), list[dict[str, Tensor]]()
        for rows, output in learner.outputs(self._target, learner.test):
            targets = learner.test_targets[rows]
            meter.update(output, targets)
            true = learner.objective.loss_per_image(output, learner.task.collate(targets))
            parts.append({**self._scores(learner.test_pooled, rows, output), "true": true})
        columns = _joined(parts)
        true_loss = columns["true"]
        head = ranking(columns["loss"], true_loss) if "loss" in columns else None
        return Measured(meter.figures(), head, ranking(columns["entropy"], true_loss))

    def columns(self, wanted: Sequence[str]) -> Columns:
        learner = self._learner
        parts = [
            self._scores(learner.pooled, rows, output)
            for rows, output in learner.outputs(self._target, learner.pool)
        ]
        return {**_joined(parts), EMBEDDING: learner.pooled[-1].numpy()}

    def outputs(self) -> NDArray[np.float32]:
        raise AssertionError("train() refuses methods that compare outputs")

    def evidence(self) -> Evidence:
        losses, found = self._choice.every.image_losses, self._choice.held_out
        entropy = self._entropy if self._learner.task.has_entropy else None
        return Evidence.measured(len(losses), losses, found.predicted, entropy, self._folds)

    def losses(self, rows: NDArray[np.int64], labels: Sequence[Any]) -> NDArray[np.float32]:
        learner, found = self._learner, [torch.empty(0)]
        for some, output in learner.outputs(self._target, learner.pool[torch.from_numpy(rows)]):
            targets = learner.task.collate([learner.targets[row] for row in rows[some]])
            found.append(learner.objective.loss_per_image(output, targets))
        return torch.cat(found).numpy()


def _joined(parts: Sequence[dict[str, Tensor]]) -> Columns:
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
