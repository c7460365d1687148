from __future__ import annotations

import math

import pytest
import torch

from lloss.tasks.pose.heatmaps import heatmap_loss


def _batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.rand(4, 2, 3, 6, 8, generator=generator)
    joints = torch.rand(4, 3, 2, generator=generator) * 6
    annotated = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    return heatmaps, joints, annotated


def test_the_loss_is_the_formula_with_loops() -> None:
    heatmaps, joints, annotated = _batch()
    expected = []
    for n in range(4):
        total = 0.0
        for stack in range(2):
            squares = []
            for j in range(3):
                if not annotated[n, j]:
                    continue
                x, y = joints[n, j].tolist()
                for row in range(6):
                    for column in range(8):
                        squared = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2
                        target = math.exp(-squared / 2)
                        squares.append((heatmaps[n, stack, j, row, column].item() - target) ** 2)
            total += sum(squares) / len(squares) if squares else 0.0
        expected.append(total)
    loss = heatmap_loss(heatmaps, joints, annotated)
    assert loss.shape == (4,)
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


def test_what_is_not_annotated_neither_counts_nor_learns() -> None:
    heatmaps, joints, annotated = _batch()
    heatmaps.requires_grad_()
    joints[~annotated] = math.nan  # nothing may be read of it
    loss = heatmap_loss(heatmaps, joints, annotated)
    assert torch.isfinite(loss).all()
    assert loss[3] == 0
    loss.sum().backward()
    assert heatmaps.grad is not None
    assert torch.isfinite(heatmaps.grad).all()
    nonzero = heatmaps.grad.abs().sum((1, 3, 4)) > 0
    assert torch.equal(nonzero, annotated)
