"""SSD's predictions on the feature maps of a frozen classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from lloss.modeling.networks.ssd import SsdOutput
from lloss.tasks.frozen_heads import WIDTH, FusedMaps, MapSize

STRIDES = (16, 32, 64, 128)  # Of the grids of anchors

RATIOS = ((2, 3),) * len(STRIDES)
SMALLEST, LARGEST = 0.07, 0.9
"""Sides of the anchors as shares of the image's: SSDLite's begin at a fifth."""


class AnchorHead(nn.Module):
    """Logits and offsets for anchors on grids, each of the maps fused and averaged to its size.

    ``maps`` are the backbone's for inputs of ``size`` pixels; ``classes`` without the background.
    """

    anchors: Tensor  # float32 [A, 4], in pixels of the input

    def __init__(self, maps: Sequence[MapSize], classes: int, size: int) -> None:
        super().__init__()
        self.sides = [max(1, -(-size // stride)) for stride in STRIDES]
        # Finer maps than the first grid would be averaged away.
        self.finer = sum(each.height > self.sides[0] for each in maps[:-1])
        self.fused = FusedMaps(maps[self.finer :])
        self.scale = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 1) for _ in STRIDES)
        make = DefaultBoxGenerator([list(each) for each in RATIOS], SMALLEST, LARGEST)
        grids = [torch.empty(1, 1, side, side) for side in self.sides]
        found = make(ImageList(torch.empty(1, 3, size, size), [(size, size)]), grids)[0]
        self.register_buffer("anchors", found, persistent=False)
        each = len(found) // sum(side**2 for side in self.sides)
        self.columns = classes + 1
        self.logits = nn.Conv2d(WIDTH, each * self.columns, 1)
        self.offsets = nn.Conv2d(WIDTH, each * 4, 1)

    def forward(self, maps: Sequence[Tensor]) -> SsdOutput:
        """Predict on N images."""
        fused = self.fused(maps[self.finer :])
        logits, offsets = [], []
        for side, layer in zip(self.sides, self.scale):
            found = torch.relu(layer(F.adaptive_avg_pool2d(fused, side)))
            logits.append(_of_anchors(self.logits(found), self.columns))
            offsets.append(_of_anchors(self.offsets(found), 4))
        return SsdOutput(torch.cat(logits, 1), torch.cat(offsets, 1), self.anchors)


def _of_anchors(found: Tensor, columns: int) -> Tensor:
    """[N, each * columns, H, W] to [N, H * W * each, columns], as torchvision's heads do."""
    count, _, height, width = found.shape
    found = found.view(count, -1, columns, height, width).permute(0, 3, 4, 1, 2)
    return found.reshape(count, -1, columns)
