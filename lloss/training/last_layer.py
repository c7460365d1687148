"""A fresh last layer on a frozen network: a linear probe, trained on its cached inputs.

A layer has hardly a loss on the images that it was trained on, and the head is to predict the loss
on others. So layers are trained by cross-validation as well: each image's loss, which the head
learns, is that of a layer that was trained without the image (Wolpert 1992, "Stacked
generalization").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lloss.data.near_copies import groups_of
from lloss.errors import SettingsError
from lloss.modeling.attached_model import AttachedModel
from lloss.modeling.network import TappedNetwork
from lloss.modeling.objective import Objective
from lloss.modeling.taps import evaluating
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.feature_cache import FeatureCache, prints_of_batch
from lloss.training.head_stack import scale_of
from lloss.training.head_training import folds_of
from lloss.training.labeled_batches import LabeledImages
from lloss.training.training_data import seed_of

LAST = "only a last linear layer can be trained on a frozen network"

DECAYS = (1.0, 0.1, 0.01, 0.001)
"""Weight decays to choose from, of standardized inputs: the mean loss gets half of it times the
square of the weights."""

ITERATIONS = 100  # At most, of L-BFGS
STILL = 3e-6  # Largest gradient, or change of the mean loss, at which it ends

FOLDS = 5

_Layer = tuple[Tensor, Tensor]
"""Weight [classes, C] and bias [classes]."""


@dataclass(frozen=True)
class _Pass:
    """What a frozen network makes of N images, up to its last layer."""

    pooled: list[Tensor]  # of the taps, float [N, C_k]
    inputs: Tensor  # of the last layer, float [N, C]
    targets: Tensor  # int64 [N]
    prints: NDArray[np.float16]  # see `groups_of`


def train_last_layer(
    model: AttachedModel, layer: nn.Linear, labeled: LabeledImages, seed: int = 0
) -> FeatureCache:
    """Train the layer that makes the network's output, in place, and cache what the head learns of.

    The cached losses, summaries and metrics are those of layers that were trained without the
    image. Raises ``SettingsError`` where the output is not the layer's.
    """
    seen = _run(model, layer, labeled)
    count, objective = len(seen.inputs), model.objective
    groups = groups_of(seen.prints)
    folds = torch.from_numpy(folds_of(count, FOLDS, seed, groups.first)).to(seen.inputs.device)
    fit = fit_linear(objective, seen.inputs, seen.targets, layer.out_features, folds)
    with torch.no_grad():
        layer.weight.copy_(fit.weight)
        layer.bias.copy_(fit.bias)
    summary = [objective.summary(fit.outputs)] if model.tapped.sees_summary else []
    metrics = objective.metric(fit.outputs, seen.targets)
    entropies = objective.outputs(fit.outputs).get("entropy")
    return FeatureCache(
        [*seen.pooled, *summary], fit.losses, count, metrics, entropies, groups=groups
    )


@dataclass(frozen=True)
class LinearFit:
    """A linear layer, and what others of its kind make of images that they were not trained on.

    Attributes:
        weight: float [classes, C].
        bias: float [classes].
        outputs: float [N, classes], of each image by the layer that was trained without its fold.
        losses: of these outputs, float [N].
    """

    weight: Tensor
    bias: Tensor
    outputs: Tensor
    losses: Tensor


def fit_linear(
    objective: Objective, inputs: Tensor, targets: Tensor, classes: int, folds: Tensor
) -> LinearFit:
    """Train a linear layer, with the weight decay that cross-validation finds the best.

    Decays are tried from the largest on, each from where the one before ended, as long as the loss
    on the other folds falls.

    Args:
        objective: has the loss.
        inputs: float [N, C]; they are standardized here, and the layer takes them as they are.
        targets: as the objective takes them.
        classes: number of outputs.
        folds: of each image, int64 [N].
    """
    mean, std = scale_of(inputs)
    points, basis = _in_their_span((inputs - mean) / std)
    decay, outputs, losses = _cross_validated(objective, classes, points, targets, folds)
    weight, bias = _fitted(objective, classes, points, targets, decay)
    weight = (weight if basis is None else weight @ basis.T) / std  # for inputs as they are
    return LinearFit(weight, bias - weight @ mean, outputs, losses)


def _cross_validated(
    objective: Objective, classes: int, points: Tensor, targets: Tensor, folds: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Return the best decay, and outputs and losses of layers trained without the image's fold."""
    parts = [folds == fold for fold in range(int(folds.max()) + 1)]
    fitted: list[_Layer | None] = [None] * len(parts)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for decay in DECAYS:
        outputs = torch.empty(len(points), classes, device=points.device)
        for number, held in enumerate(parts):
            layer = _fitted(
                objective, classes, points[~held], targets[~held], decay, fitted[number]
            )
            outputs[held] = functional.linear(points[held], *layer)
            fitted[number] = layer
        losses = objective.loss_per_image(outputs, targets).float()
        mean_loss = float(losses.mean())
        if best is not None and mean_loss >= best[0]:
            break
        best = mean_loss, decay, outputs, losses
    assert best is not None, "there are decays"
    return best[1:]


def _in_their_span(points: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return fewer coordinates of points [N, C], and their orthonormal basis [C, N].

    With fewer images than channels the weights that decay leaves are combinations of the images:
    in the span of these the same layer is found, in less time.
    """
    if points.shape[0] >= points.shape[1]:
        return points, None
    basis, triangle = torch.linalg.qr(points.T)
    return triangle.T.contiguous(), basis


def built(settings: TrainSettings, classes: Sequence[str], number: int) -> TappedNetwork:
    """Build the network of some settings; what is drawn at random depends on the number."""
    with torch.random.fork_rng(devices=[]):  # it is built on the CPU
        torch.default_generator.manual_seed(seed_of(settings.seed, number))
        return get_task(settings.task).network(settings, classes)


def fresh_layers(network: nn.Module, other: nn.Module) -> list[str]:
    """Name the layers without trained weights: they differ between builds of two seeds, or are 0.

    Both are the same network with the same first weights.
    """
    theirs = other.state_dict()
    fresh = (
        name
        for name, value in network.state_dict().items()
        if not torch.equal(value, theirs[name]) or (value.ndim == 2 and not value.any())
    )
    return list(dict.fromkeys(name.rpartition(".")[0] for name in fresh))


def _run(model: AttachedModel, layer: nn.Linear, labeled: LabeledImages) -> _Pass:
    inputs: list[Tensor] = []
    pooled: list[list[Tensor]] = []
    prints: list[NDArray[np.float16]] = []
    targets: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, seen: inputs.append(seen[0].float()))
    try:
        with evaluating(model):
            for images, some in labeled.batches():
                features = model.tapped.features(images)
                made = functional.linear(inputs[-1], layer.weight, layer.bias)
                output = features.output
                if not isinstance(output, Tensor) or output.shape != made.shape or made.ndim != 2:
                    raise SettingsError(f"freeze: the fresh layer does not end the network; {LAST}")
                if not torch.allclose(output.float(), made, atol=1e-4):
                    raise SettingsError(
                        f"freeze: the network changes the output of its fresh layer; {LAST}"
                    )
                pooled.append(features.pooled)
                targets.append(some)
                prints.append(prints_of_batch(model, images))
    finally:
        handle.remove()
    columns = [torch.cat(columns) for columns in zip(*pooled)]
    return _Pass(columns, torch.cat(inputs), torch.cat(targets), np.concatenate(prints))


def _fitted(
    objective: Objective,
    classes: int,
    points: Tensor,
    targets: Tensor,
    decay: float,
    start: _Layer | None = None,
) -> _Layer:
    """Minimize the mean loss of a linear layer, from a start or from 0."""
    weight = torch.zeros(classes, points.shape[1], device=points.device)
    bias = torch.zeros(classes, device=points.device)
    if start is not None:
        weight, bias = (values.clone() for values in start)
    weight.requires_grad_(True)
    bias.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        tolerance_grad=STILL,
        tolerance_change=STILL,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = objective.loss_per_image(functional.linear(points, weight, bias), targets)
        total = each.mean() + decay / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
