from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.network import Normalize, TappedNetwork
from lloss.modeling.taps import Tap
from lloss.tasks import get_task
from lloss.tasks.classification import ClassificationObjective
from lloss.tasks.train_settings import TrainSettings

CLASSES = ("ant", "bee", "cow")


def _built(settings: TrainSettings, **changes: Any) -> TappedNetwork:
    torch.manual_seed(0)
    return get_task("classification").network(replace(settings, **changes), CLASSES)


def _images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _gradients(module: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.any()) for p in module.parameters()]


def test_the_head_sees_the_mean_of_each_tapped_map(tiny: TrainSettings) -> None:
    model = _built(tiny, head_summary=False).eval()
    maps: list[Tensor] = []
    for tap in model.taps:
        module = model.network.get_submodule(tap.module)
        module.register_forward_hook(lambda _m, _i, output: maps.append(output.clone()))
    forward = model(_images())
    assert model.head is not None
    pooled = [output.flatten(2).sum(2) / output[0, 0].numel() for output in maps]
    assert len(pooled) == 4
    assert torch.allclose(forward.loss, model.head(pooled), atol=1e-6)
    assert torch.allclose(forward.embedding, pooled[-1], atol=1e-6)


@pytest.mark.parametrize("summary", [False, True])
def test_a_stopped_gradient_reaches_nothing_but_the_head(
    tiny: TrainSettings, summary: bool
) -> None:
    model = _built(tiny, head_summary=summary)
    model(_images(), stop_gradient=True).loss.pow(2).sum().backward()
    assert model.head is not None
    assert not any(_gradients(model.network))
    assert any(_gradients(model.head))


def test_the_summary_is_detached(tiny: TrainSettings) -> None:
    """Through the summary no gradient may reach the classifier, which is behind no tap."""
    model = _built(tiny, head_summary=True)
    model(_images()).loss.pow(2).sum().backward()
    assert not any(_gradients(model.network.get_submodule("classifier")))
    assert any(_gradients(model.network.get_submodule("stages")))


class _Careless(nn.Module):
    """Changes its feature map in place after making it, as a ReLU often does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        F.relu(maps, inplace=True)
        logits: Tensor = self.last(maps.mean((2, 3)))
        return logits


def test_a_later_change_in_place_does_not_change_what_the_head_sees() -> None:
    network = _Careless()
    taps = [Tap("features", "NCHW", 4)]
    model = TappedNetwork(network, ClassificationObjective(CLASSES), taps, LossPredictionHead([4]))
    forward = model(_images())
    expected = network.features(_images()).mean((2, 3))
    assert torch.allclose(forward.embedding, expected, atol=1e-6)
    (forward.loss.sum() + forward.output.sum()).backward()  # autograd would see a changed map
    assert all(_gradients(network.features))


def test_normalising_is_its_formula_and_puts_channels_first() -> None:
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    found = Normalize(IMAGENET_MEAN, IMAGENET_STD)(images)
    assert found.shape == (2, 3, 4, 5)
    for c in range(3):
        expected = (images[..., c].float() / 255 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]
        assert torch.allclose(found[:, c], expected, atol=1e-6)
