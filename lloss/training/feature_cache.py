"""What a frozen network makes of labeled images: one pass, of which the head then learns."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lloss.data.near_copies import SIDE, Groups, groups_of
from lloss.errors import LabelError
from lloss.modeling.attached_model import AttachedModel
from lloss.modeling.objective import one_per_image
from lloss.modeling.taps import evaluating
from lloss.training.labeled_batches import LabeledImages


@dataclass(frozen=True)
class FeatureCache:
    """Inputs of the head, float [R, C_k], and losses, float [R].

    The first ``images`` rows are the images, the others augmented views in the same order.
    """

    inputs: list[Tensor]
    losses: Tensor
    images: int
    metrics: Tensor | None = None  # the task's figure on each image, float [images]
    entropies: Tensor | None = None  # likewise, of the network's output
    span: tuple[float, float] = (-1.0, 1.0)  # the least and the largest value of the images
    groups: Groups | None = None  # of near-duplicates among the images

    def rows(self, images: NDArray[np.int64]) -> Tensor:
        """Return the rows of these images and of their views."""
        starts = range(0, len(self.losses), self.images)
        return torch.from_numpy(np.concatenate([images + start for start in starts]))

    def without_maps(self) -> FeatureCache:
        """Return the same with zeros in place of all inputs but the last, which is the summary."""
        zeros = [values.new_zeros(()).expand_as(values) for values in self.inputs[:-1]]
        return dataclasses.replace(self, inputs=[*zeros, self.inputs[-1]])

    @property
    def metric(self) -> float | None:
        """Mean of ``metrics``."""
        return None if self.metrics is None else float(self.metrics.mean())

    @property
    def image_losses(self) -> NDArray[np.float32]:
        """Losses of the images without their views, float [images]."""
        losses: NDArray[np.float32] = self.losses[: self.images].cpu().numpy()
        return losses


def run_network(
    model: AttachedModel,
    labeled: LabeledImages,
    views: int = 0,
    seed: int = 0,
    grouped: bool = False,
) -> FeatureCache:
    """Run the network once, in eval mode, over the images and ``views`` of each.

    With ``grouped`` near-duplicates among the images are looked for.
    """
    inputs: list[list[Tensor]] = []
    losses: list[Tensor] = []
    metrics: list[Tensor] = []
    entropies: list[Tensor] = []
    images, span, prints = 0, (math.inf, -math.inf), list[NDArray[np.float16]]()
    with evaluating(model):
        for view in range(views + 1):
            for batch, targets in labeled.batches(view, seed):
                features = model.tapped.features(batch)
                found = model.objective.loss_per_image(features.output, targets)
                losses.append(one_per_image(found, model.task, len(batch)).float())
                summary = [] if features.summary is None else [features.summary]
                inputs.append([*features.pooled, *summary])
                if not view:
                    images += len(batch)
                    prints += [prints_of_batch(model, batch)] if grouped else []
                    span = min(span[0], float(batch.min())), max(span[1], float(batch.max()))
                    metric = model.objective.metric(features.output, targets)
                    metrics += [] if metric is None else [metric]
                    entropy = model.objective.outputs(features.output).get("entropy")
                    entropies += [] if entropy is None else [entropy.float()]
    if not losses:
        raise LabelError("no labeled image: give some")
    columns = [torch.cat(columns) for columns in zip(*inputs)]
    return FeatureCache(
        columns,
        torch.cat(losses),
        images,
        metrics=torch.cat(metrics) if metrics else None,
        entropies=torch.cat(entropies) if entropies else None,
        span=span,
        groups=groups_of(np.concatenate(prints)) if grouped else None,
    )


def prints_of_batch(model: AttachedModel, images: Tensor) -> NDArray[np.float16]:
    """Shrink normalized images float [B, 3, H, W] to what near-duplicates are known by."""
    small = functional.adaptive_avg_pool2d(images.float(), SIDE)
    mean, std = (
        torch.tensor(values, device=small.device)[:, None, None]
        for values in (model.preparation.mean, model.preparation.std)
    )
    levels = 255 * (small * std + mean).permute(0, 2, 3, 1)
    found: NDArray[np.float16] = levels.cpu().numpy().astype(np.float16)
    return found
