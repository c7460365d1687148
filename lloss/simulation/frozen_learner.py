"""The fast learner: a linear target head and the loss head, trained on cached features.

The target head is the linear layer of :func:`.fit_linear` on what the network's own last layer
reads, the loss head that of ``lloss train --freeze``: it learns the losses that layers trained
without the image have on it. The paper's head ("joint" in full training) learns on a frozen network
the losses of the images that the layer was trained on, as the paper's does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lloss.manifest import EMBEDDING
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.modeling.objective import Objective
from lloss.selection.automatic import Evidence
from lloss.simulation.frozen_network import Layout
from lloss.simulation.learner import Columns, Measured, class_figures, ranking
from lloss.simulation.methods import BALD, PROBABILITIES, Method
from lloss.simulation.scenarios import TrialPool
from lloss.statistics.disagreement import mutual_information
from lloss.tasks.train_settings import TrainSettings
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_choice import HeadChoice
from lloss.training.head_training import folds_of
from lloss.training.last_layer import FOLDS, LinearFit, fit_linear

PASSES, DROPOUT = 10, 0.5
"""Of BALD: passes with dropout, and the share of the target head's inputs that each drops."""

LAST_LAYER = "last_layer"
"""Column of what the target head reads, for a method that measures likeness in it."""

Features = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Returns the features of rows and variants, float32 [N, width]."""


class FrozenLearner:
    """Trains heads on the features of a trial's pool.

    ``read`` gives features by rows of the source and variants; ``test`` are the features of the
    test set, with its classes int64 [T].
    """

    def __init__(
        self,
        settings: TrainSettings,
        objective: Objective,
        layout: Layout,
        names: Sequence[str],
        read: Features,
        test: tuple[NDArray[np.float32], NDArray[np.int64]],
    ) -> None:
        self.settings, self.objective, self.layout = settings, objective, layout
        self.names = tuple(names)
        self._read = read
        self.test, self.test_classes = torch.from_numpy(test[0]), torch.from_numpy(test[1])
        self.pool = torch.empty(0)

    def open(self, pool: TrialPool) -> None:
        self.pool = torch.from_numpy(self._read(pool.rows, pool.variants))

    def train(
        self, rows: NDArray[np.int64], labels: Sequence[Any], method: Method, seed: int
    ) -> FrozenModel:
        targets = self.targets(labels)
        features = self.pool[torch.from_numpy(rows)]
        folds = folds_of(len(rows), min(FOLDS, len(rows)), seed)
        inputs = self.layout.of_last_layer(features)
        fit = fit_linear(self.objective, inputs, targets, len(self.names), torch.from_numpy(folds))
        return FrozenModel(
            self, fit, self._cache(features, targets, fit, method), folds, method, seed
        )

    def targets(self, labels: Sequence[Any]) -> Tensor:
        """Return the classes of labels, int64 [N]."""
        numbers = {name: number for number, name in enumerate(self.names)}
        return torch.tensor([numbers[label] for label in labels])

    def _cache(
        self, features: Tensor, targets: Tensor, fit: LinearFit, method: Method
    ) -> FeatureCache:
        """What the loss head learns of."""
        losses, outputs = fit.losses, fit.outputs
        if method.joint:
            outputs = functional.linear(self.layout.of_last_layer(features), fit.weight, fit.bias)
            losses = self.objective.loss_per_image(outputs, targets)
        sees_summary = method.settings(self.settings).head_summary
        summary = [self.objective.summary(outputs)] if sees_summary else []
        return FeatureCache([*self.layout.pooled(features), *summary], losses, len(losses))


class FrozenModel:
    """The heads of one cycle; the loss head is trained when it is asked for."""

    def __init__(
        self,
        learner: FrozenLearner,
        fit: LinearFit,
        cache: FeatureCache,
        folds: NDArray[np.int64],
        method: Method,
        seed: int,
    ) -> None:
        self._learner, self._fit, self._cache = learner, fit, cache
        self._method, self._seed = method, seed
        self._settings = method.settings(learner.settings)
        self._choice = HeadChoice(self._fresh(), cache, self._compare, seed, folds)
        self._head = self._choice.trained() if method.head else None

    @property
    def _compare(self) -> Callable[..., Tensor]:
        return functools.partial(HEAD_LOSSES[self._settings.head_loss], xi=self._settings.xi)

    def _fresh(self) -> LossPredictionHead:
        layout, hidden = self._learner.layout, self._settings.hidden
        summary = self._cache.inputs[len(layout.taps) :]
        return LossPredictionHead(layout.taps, summary[0].shape[1] if summary else 0, hidden)

    def _outputs(self, features: Tensor) -> Tensor:
        inputs = self._learner.layout.of_last_layer(features)
        return functional.linear(inputs, self._fit.weight, self._fit.bias)

    def _loss(self, features: Tensor, outputs: Tensor) -> Tensor | None:
        """The predicted loss, float [N]: positive, where the head learned its logarithm."""
        if self._head is None:
            return None
        learner = self._learner
        summary = None
        if len(self._cache.inputs) > len(learner.layout.taps):
            summary = learner.objective.summary(outputs)
        with torch.no_grad():
            predicted: Tensor = self._head(learner.layout.pooled(features), summary)
        return predicted

    def measure(self) -> Measured:
        learner = self._learner
        outputs, true = self._outputs(learner.test), learner.test_classes
        loss = learner.objective.loss_per_image(outputs, true).numpy()
        predicted = self._loss(learner.test, outputs)
        entropy = learner.objective.outputs(outputs)["entropy"].numpy()
        return Measured(
            class_figures(outputs.argmax(1).numpy(), true.numpy(), learner.names),
            None if predicted is None else ranking(predicted.numpy(), loss),
            ranking(entropy, loss),
        )

    def columns(self, wanted: Sequence[str]) -> Columns:
        learner, pool = self._learner, self._learner.pool
        outputs = self._outputs(pool)
        found = {name: value.numpy() for name, value in learner.objective.outputs(outputs).items()}
        predicted = self._loss(pool, outputs)
        if predicted is not None:
            found["loss"] = predicted.numpy()
        found[EMBEDDING] = learner.layout.pooled(pool)[-1].numpy()
        if self._method.embedding == LAST_LAYER:
            found[LAST_LAYER] = learner.layout.of_last_layer(pool).numpy()
        if PROBABILITIES in wanted:
            found[PROBABILITIES] = outputs.softmax(1).numpy()
            found[EMBEDDING] = learner.layout.of_last_layer(pool).numpy()  # BADGE's gradients
        if BALD in wanted:
            found[BALD] = self._bald()
        return found

    def outputs(self) -> NDArray[np.float32]:
        return self._outputs(self._learner.pool).softmax(1).numpy()

    def _bald(self) -> NDArray[np.float32]:
        """Mutual information, by passes that drop inputs: a pass drops the same for all images."""
        inputs = self._learner.layout.of_last_layer(self._learner.pool)
        generator = torch.Generator().manual_seed(self._seed)
        passes = []
        for _ in range(PASSES):
            kept = torch.rand(inputs.shape[1], generator=generator) >= DROPOUT
            weight = self._fit.weight * kept / (1 - DROPOUT)
            passes.append(functional.linear(inputs, weight, self._fit.bias).softmax(1))
        return mutual_information(torch.stack(passes).numpy()).astype(np.float32)

    def evidence(self) -> Evidence:
        entropy = self._learner.objective.outputs(self._fit.outputs)["entropy"].numpy()
        losses, choice = self._fit.losses.numpy(), self._choice
        found = choice.held_out.predicted
        return Evidence.measured(len(losses), losses, found, entropy, choice.folds)

    def losses(self, rows: NDArray[np.int64], labels: Sequence[Any]) -> NDArray[np.float32]:
        learner = self._learner
        outputs = self._outputs(learner.pool[torch.from_numpy(rows)])
        return learner.objective.loss_per_image(outputs, learner.targets(labels)).numpy()
