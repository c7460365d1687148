"""The loss of pose: mean squared error of heatmaps, for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from lloss.tasks.pose.heatmaps import render


def heatmap_loss(heatmaps: Tensor, joints: Tensor, annotated: Tensor) -> Tensor:
    """Squared error against the joints' Gaussians, summed over the stacks (Newell et al. 2016).

    ``sum over stacks of the mean over annotated joints and pixels of (heatmap - Gaussian)²``.
    A joint that is not annotated adds nothing and is not counted, so that images with few
    annotated joints compare with those with many. An image without any has the loss 0.

    Args:
        heatmaps: float [N, stacks, J, H, W].
        joints: x, y in pixels of the heatmaps, float [N, J, 2]; anything where not annotated.
        annotated: bool [N, J].

    Returns:
        Float [N].
    """
    size = heatmaps.shape[-2], heatmaps.shape[-1]
    places = torch.where(annotated[..., None], joints.float(), 0.0)
    targets = render(places, size)[:, None]
    error = (heatmaps.float() - targets).square().mean((-2, -1)).sum(1)
    counted = torch.where(annotated, error, error.new_zeros(()))
    return counted.sum(1) / annotated.sum(1).clamp(min=1)
