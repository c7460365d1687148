"""Heatmaps: a Gaussian around each joint, the joint back from a heatmap, and their loss.

Coordinates are pixels of the heatmap, the centre of the first pixel being 0.5, 0.5; so those of an
input four times as large are divided by four, and mirroring maps ``x`` to ``width - x``.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA = 1.0  # Of the Gaussians, in pixels of the heatmap (Newell et al. 2016, section 3.2)

SHIFT = 0.25
"""Pixels that a decoded joint moves from the middle of the highest pixel to a neighbour."""


def render(joints: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw Gaussians of height 1 around joints, x, y [..., 2]: float [..., height, width].

    Pixels hold ``exp(-d² / 2σ²)`` of their centre's distance ``d`` from the joint's exact place,
    not from a pixel's as in the paper's code: so the shift of :func:`decode` means something.
    """
    height, width = size
    columns = torch.arange(width, device=joints.device, dtype=joints.dtype) + 0.5
    rows = torch.arange(height, device=joints.device, dtype=joints.dtype) + 0.5
    across = torch.exp((columns - joints[..., 0:1]).square() / (-2 * SIGMA**2))
    down = torch.exp((rows - joints[..., 1:2]).square() / (-2 * SIGMA**2))
    return down[..., :, None] * across[..., None, :]


def decode(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the peaks of heatmaps, float [..., H, W]: x, y, float [..., 2], and heights, [...].

    A joint is at the centre of the highest pixel (the first of equals), moved by a quarter of a
    pixel along each axis towards the higher of the two neighbours (Newell et al. 2016, section
    3.2); at the border or between equal neighbours it stays.
    """
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.flatten(-2)
    peaks, at = flat.max(-1)
    column, row = at % width, at // width
    x = column + 0.5 + SHIFT * _slope(flat, at, 1, column, width)
    y = row + 0.5 + SHIFT * _slope(flat, at, width, row, height)
    return torch.stack([x, y], -1).to(heatmaps.dtype), peaks


def _slope(flat: Tensor, at: Tensor, step: int, position: Tensor, length: int) -> Tensor:
    """-1, 0 or 1: to which side of the peak the heatmap is higher, 0 at the border."""
    inside = (position > 0) & (position < length - 1)
    after = flat.gather(-1, (at + step).clamp(max=flat.shape[-1] - 1)[..., None])[..., 0]
    before = flat.gather(-1, (at - step).clamp(min=0)[..., None])[..., 0]
    return torch.sign(after - before) * inside


def heatmap_loss(heatmaps: Tensor, joints: Tensor, annotated: Tensor) -> Tensor:
    """Squared error against the joints' Gaussians, summed over the stacks (Newell et al. 2016).

    ``sum over stacks of the mean over annotated joints and pixels of (heatmap - Gaussian)²``.
    A joint that is not annotated adds nothing and is not counted, so that images with few
    annotated joints compare with those with many. An image without any has the loss 0.
    Takes heatmaps float [N, stacks, J, H, W], joints x, y in their pixels float [N, J, 2] (anything
    where not annotated), and bool [N, J].
    """
    size = heatmaps.shape[-2], heatmaps.shape[-1]
    places = torch.where(annotated[..., None], joints.float(), 0.0)
    targets = render(places, size)[:, None]
    error = (heatmaps.float() - targets).square().mean((-2, -1)).sum(1)
    counted = torch.where(annotated, error, error.new_zeros(()))
    return counted.sum(1) / annotated.sum(1).clamp(min=1)
