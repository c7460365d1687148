from __future__ import annotations

import pytest
import torch

from lloss.errors import SettingsError
from lloss.tasks import get_task
from lloss.tasks.frozen_heads import MapSize
from lloss.tasks.presets import resolve_settings

MAPS = [MapSize(5, 16, 16), MapSize(7, 8, 8), MapSize(9, 4, 4)]
OUTSIDE = "tests.outside_networks:TwoStages"


def _maps(count: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(count, m.channels, m.height, m.width) for m in MAPS]


def _head(task: str, size: int = 64) -> torch.nn.Module:
    settings = resolve_settings("default", task=task, size=size, model=OUTSIDE)
    return get_task(task).frozen_head(MAPS, ["a", "b", "c"], settings)


def test_heatmaps_are_as_large_as_the_finest_map_and_near_zero_at_first() -> None:
    heatmaps = _head("pose")(_maps())
    assert heatmaps.shape == (2, 1, 3, 16, 16)
    assert heatmaps.abs().max() < 0.5


def test_pixels_have_logits_of_the_input_size() -> None:
    assert _head("segmentation")(_maps()).shape == (2, 3, 64, 64)


def test_predictions_are_for_anchors_in_the_input() -> None:
    output = _head("detection", 128)(_maps())
    count = (8 * 8 + 4 * 4 + 2 * 2 + 1) * 6
    assert output.logits.shape == (2, count, 4) and output.offsets.shape == (2, count, 4)
    assert output.anchors.shape == (count, 4)
    centers = (output.anchors[:, :2] + output.anchors[:, 2:]) / 2
    assert ((centers > 0) & (centers < 128)).all()
    # Row by row of the first grid, six shapes each: the first anchors are in the upper left corner.
    assert torch.allclose(centers[:6], torch.full((6, 2), 8.0), atol=0.01)
    assert torch.allclose(centers[6], torch.tensor([24.0, 8.0]), atol=0.01)


def test_an_anchor_is_predicted_from_its_place() -> None:
    head = _head("detection", 128)
    maps = _maps(1)
    changed = [maps[0], maps[1].clone(), maps[2]]
    changed[1][0, :, 0, 0] += 5  # the upper left position of the first grid
    moved = (head(changed).logits - head(maps).logits).abs().amax(2)[0, : 8 * 8 * 6].view(8, 8, 6)
    assert moved[0, 0].max() > 0
    assert moved[4:, 4:].max() == 0


def test_a_task_without_a_head_says_so() -> None:
    settings = resolve_settings("default")
    with pytest.raises(SettingsError, match="no head for classification on a frozen network"):
        get_task("classification").frozen_head(MAPS, ["a"], settings)
