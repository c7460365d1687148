"""A fresh last layer on a frozen network: a linear probe, trained on its cached inputs.

A layer has hardly a loss on the images that it was trained on, and the head is to predict the loss
on others. So layers are trained by cross-validation as well: each image's loss, which the head
learns, is that of a layer that was trained without the image (Wolpert 1992, "Stacked
generalization").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lloss.errors import SettingsError
from lloss.modeling.attached_model import AttachedModel
from lloss.modeling.objective import Objective
from lloss.modeling.taps import evaluating
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_training import folds_of, scale_of, unscale
from lloss.training.labeled_batches import LabeledImages

LAST = "only a last linear layer can be trained on a frozen network"

DECAYS = (1.0, 0.1, 0.01, 0.001)
"""Weight decays to choose from, of standardized inputs: the mean loss gets half of it times the
square of the weights."""

ITERATIONS = 100  # At most, of L-BFGS

FOLDS = 5


@dataclass(frozen=True)
class _Pass:
    """What a frozen network makes of N images, up to its last layer."""

    pooled: list[Tensor]  # of the taps, float [N, C_k]
    inputs: Tensor  # of the last layer, float [N, C]
    targets: Tensor  # int64 [N]


def train_last_layer(
    model: AttachedModel, layer: nn.Linear, labeled: LabeledImages, seed: int = 0
) -> FeatureCache:
    """Train the layer that makes the network's output, in place, and cache what the head learns of.

    The cached losses, summaries and metrics are those of layers that were trained without the
    image. Raises ``SettingsError`` where the output is not the layer's.
    """
    seen = _run(model, layer, labeled)
    mean, std = scale_of(seen.inputs)
    inputs = (seen.inputs - mean) / std
    count, classes, objective = len(inputs), layer.out_features, model.objective
    folds = torch.from_numpy(folds_of(count, FOLDS, seed)).to(inputs.device)
    found: dict[float, Tensor] = {}
    for decay in DECAYS:
        outputs = torch.empty(count, classes, device=inputs.device)
        for fold in range(FOLDS):
            rest, held = folds != fold, folds == fold
            fitted = _fitted(objective, classes, inputs[rest], seen.targets[rest], decay)
            outputs[held] = functional.linear(inputs[held], *fitted)
        found[decay] = outputs
    losses = {d: objective.loss_per_image(outputs, seen.targets) for d, outputs in found.items()}
    best = min(losses, key=lambda decay: float(losses[decay].mean()))
    whole = _fitted(objective, classes, inputs, seen.targets, best)
    with torch.no_grad():
        for parameter, value in zip((layer.weight, layer.bias), whole):
            parameter.copy_(value)
    unscale(layer, mean, std)
    summary = [objective.summary(found[best])] if model.tapped.sees_summary else []
    metrics = objective.metric(found[best], seen.targets)
    return FeatureCache([*seen.pooled, *summary], losses[best].float(), count, metrics)


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
    finally:
        handle.remove()
    columns = [torch.cat(columns) for columns in zip(*pooled)]
    return _Pass(columns, torch.cat(inputs), torch.cat(targets))


def _fitted(
    objective: Objective, classes: int, inputs: Tensor, targets: Tensor, decay: float
) -> tuple[Tensor, Tensor]:
    """Minimize the mean loss of a linear layer: weight [classes, C] and bias [classes]."""
    weight = torch.zeros(classes, inputs.shape[1], device=inputs.device, requires_grad=True)
    bias = torch.zeros(classes, device=inputs.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = objective.loss_per_image(functional.linear(inputs, weight, bias), targets)
        total = each.mean() + decay / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
