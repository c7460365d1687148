"""Small heads on the feature maps of a frozen classifier: for many trainings in little time.

Each takes maps, float [N, C_k, H_k, W_k], from the finest to the deepest, and returns what the
task's objective takes. Simulations train them on cached maps; see ``Task.frozen_head``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 64  # Channels of a head


@dataclass(frozen=True)
class MapSize:
    """Channels, height and width of a feature map."""

    channels: int
    height: int
    width: int


class FusedMaps(nn.Module):
    """Bring maps to one width and to the size of the finest, and add them up.

    Lin et al. 2017, "Feature Pyramid Networks for Object Detection", with one output.
    """

    def __init__(self, maps: Sequence[MapSize]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each.channels, WIDTH, 1) for each in maps)
        self.mixed = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.ReLU(),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse maps of N images to float [N, WIDTH, H, W]."""
        size = maps[0].shape[2:]
        found = [layer(each) for layer, each in zip(self.lateral, maps)]
        total = found[0]
        for each in found[1:]:
            total = total + F.interpolate(each, size=size, mode="bilinear", align_corners=False)
        mixed: Tensor = self.mixed(total)
        return mixed


class MapsHead(nn.Module):
    """One 1×1 convolution on fused maps: float [N, outputs, H, W], as large as the finest map.

    The first predictions are near 0: ``gain`` scales the fresh weights.
    """

    def __init__(self, maps: Sequence[MapSize], outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        self.fused = FusedMaps(maps)
        self.last = nn.Conv2d(WIDTH, outputs, 1)
        with torch.no_grad():
            self.last.weight.mul_(gain)
            self.last.bias.zero_()  # type: ignore[union-attr]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Predict on N images."""
        found: Tensor = self.last(self.fused(maps))
        return found


class HeatmapHead(MapsHead):
    """Heatmaps of joints as of one stack: float [N, 1, J, H, W].

    They are as large as the finest map. Resized to a quarter of the input, as a Stacked Hourglass
    has them, they learn much slower: PCKh .26 instead of .34 after 250 steps on 250 persons.
    """

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Predict on N images."""
        return super().forward(maps)[:, None]


class PixelHead(MapsHead):
    """Logits of the input's size: float [N, classes, size, size]."""

    def __init__(self, maps: Sequence[MapSize], classes: int, size: int) -> None:
        super().__init__(maps, classes)
        self.size = size, size

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Predict on N images."""
        found = super().forward(maps)
        return F.interpolate(found, size=self.size, mode="bilinear", align_corners=False)
