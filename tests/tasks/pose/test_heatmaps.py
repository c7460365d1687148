from __future__ import annotations

import math

import torch

from lloss.tasks.pose.heatmaps import decode, render


def test_a_heatmap_is_the_formula_at_each_pixels_centre() -> None:
    (heatmap,) = render(torch.tensor([[3.2, 4.9]], dtype=torch.float64), (7, 6))
    for row in range(7):
        for column in range(6):
            squared = (column + 0.5 - 3.2) ** 2 + (row + 0.5 - 4.9) ** 2
            assert math.isclose(heatmap[row, column], math.exp(-squared / 2), rel_tol=1e-12)


def test_a_joint_comes_back_within_a_quarter_of_a_pixel_and_without_bias() -> None:
    joints = 1 + 62 * torch.rand(20_000, 2, generator=torch.Generator().manual_seed(1))
    places, _ = decode(render(joints, (64, 64)))
    error = places - joints
    assert error.abs().max() <= 0.2501
    # Uniform in ±1/4: standard deviation .144, of the mean of 20,000 .001.
    assert error.mean(0).abs().max() < 0.005


def test_the_peak_moves_to_the_higher_neighbour_along_each_axis() -> None:
    heatmap = torch.zeros(5, 5)
    heatmap[2, 2], heatmap[2, 3], heatmap[1, 2] = 1.0, 0.4, 0.2
    assert decode(heatmap)[0].tolist() == [2.75, 2.25]
    heatmap[2, 1] = 0.4  # as high as the one opposite
    assert decode(heatmap)[0].tolist() == [2.5, 2.25]
