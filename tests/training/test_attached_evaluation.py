"""Figures of a network from outside and its head."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import lloss
from lloss.errors import LabelError
from lloss.images.decode import decode_whole
from lloss.simulation.image_variants import variant_of
from lloss.statistics.confidence_intervals import wilson

from ..data.test_near_copies import item_of, scene
from ..outside_networks import DepthLoss, DepthNet, TwoStages


def test_figures_are_those_of_the_formulas(photos: Path) -> None:
    torch.manual_seed(0)
    model = lloss.attach(TwoStages(), classes=["bright", "dark", "red"], size=8)
    labeled = lloss.open_labeled(photos)
    lloss.fit(model, labeled, epochs=10, lr=0.01)
    images = torch.stack([_normalized(model, item.read()) for item in labeled.items])
    targets = torch.tensor([model.classes.index(label) for label in labeled.labels])
    model.eval()
    with torch.no_grad():
        out, predicted = model(images)
    losses = F.cross_entropy(out, targets, reduction="none")
    larger = losses[:, None] > losses[None]
    right = (larger & (predicted[:, None] > predicted[None])).sum() / larger.sum()
    model.train()
    found = lloss.evaluate(model, labeled)
    assert model.training and found.images == 60
    assert found.mean_loss == pytest.approx(float(losses.mean()), abs=1e-5)
    assert found.ranking.ranking_accuracy == pytest.approx(float(right), abs=1e-3)
    hits = int((out.argmax(1) == targets).sum())
    assert found.metric == pytest.approx(hits / 60)
    assert found.metric_interval == wilson(hits, 60)
    assert str(found).startswith("accuracy ") and "of the pairs of 60 images right" in str(found)


def test_intervals_count_groups_of_near_duplicates() -> None:
    scenes = [item_of(scene(number), f"{number}.png") for number in range(24)]
    items = [variant_of(item, frame, True) for item in scenes for frame in range(3)]
    images = np.stack([decode_whole(item.read()) for item in items])
    targets = np.arange(24).repeat(3) % 3
    torch.manual_seed(0)
    model = lloss.attach(TwoStages(), classes=["a", "b", "c"], size=64)
    found = lloss.evaluate(model, images, targets)
    assert found.groups and found.groups.apart == 24
    assert str(found).endswith("; intervals count 24 groups of near-duplicates")
    assert found.metric is not None and found.metric_interval is not None
    alone = wilson(found.metric * 72, 72)
    assert found.metric_interval[1] - found.metric_interval[0] > 1.2 * (alone[1] - alone[0])
    few = lloss.evaluate(model, images[:57], targets[:57])
    assert "57 unseen images are of 19 scenes: too few" in str(few.unit)
    apart = lloss.evaluate(model, images[::3], targets[::3])
    assert apart.metric is not None and "near" not in str(apart)
    assert apart.metric_interval == wilson(round(apart.metric * 24), 24)


def _normalized(model: lloss.AttachedModel, png: bytes) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).float() / 255
    mean, std = torch.tensor(model.preparation.mean), torch.tensor(model.preparation.std)
    return ((pixels - mean) / std).permute(2, 0, 1)


def test_a_task_of_ones_own_has_an_interval_of_its_metric_if_it_has_one() -> None:
    class Error(DepthLoss):
        def metric(self, output: object, targets: torch.Tensor) -> torch.Tensor:
            return -self.loss_per_image(output, targets)

    class Loss:
        loss_per_image = DepthLoss.loss_per_image

    images, targets = torch.randn(30, 3, 8, 8), torch.rand(30)
    found = lloss.evaluate(lloss.attach(DepthNet(), task=Error(), size=8), images, targets)
    assert found.metric is not None and found.metric_interval is not None
    assert found.metric_interval[0] < found.metric < found.metric_interval[1]
    assert "metric -0." in str(found)
    plain = lloss.evaluate(lloss.attach(DepthNet(), task=Loss(), size=8), images, targets)
    assert plain.metric is None and plain.metric_interval is None
    assert str(plain).startswith("the head orders")
    with pytest.raises(LabelError, match="one image cannot be ranked"):
        lloss.evaluate(lloss.attach(DepthNet(), task=Loss(), size=8), images[:1], targets[:1])
