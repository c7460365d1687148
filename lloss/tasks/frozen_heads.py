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

from lloss.modeling.networks.ssd import SsdOutput

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
    """One 1×1 convolution on fused maps, resized to ``size``: float [N, outputs, size, size]."""

    def __init__(self, maps: Sequence[MapSize], outputs: int, size: int, gain: float = 1.0) -> None:
        super().__init__()
        self.fused, self.size = FusedMaps(maps), size
        self.last = nn.Conv2d(WIDTH, outputs, 1)
        with torch.no_grad():
            self.last.weight.mul_(gain)
            self.last.bias.zero_()  # type: ignore[union-attr]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Predict on N images."""
        found = self.last(self.fused(maps))
        size = (self.size, self.size)
        return F.interpolate(found, size=size, mode="bilinear", align_corners=False)


class HeatmapHead(MapsHead):
    """Heatmaps of joints as of one stack: float [N, 1, J, size, size]."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Predict on N images."""
        return super().forward(maps)[:, None]


class AnchorHead(nn.Module):
    """SSD's predictions for anchors on the grids of its source maps.

    Args:
        maps: of the backbone.
        grids: height and width of each source map, in the order of the anchors.
        each: anchors at a position.
        classes: without the background.
        anchors: float [A, 4], in pixels of the input.
    """

    anchors: Tensor

    def __init__(
        self,
        maps: Sequence[MapSize],
        grids: Sequence[tuple[int, int]],
        each: int,
        classes: int,
        anchors: Tensor,
    ) -> None:
        super().__init__()
        self.grids, self.columns = tuple(grids), classes + 1
        # Finer maps than the first grid would be averaged away.
        self.finer = sum(size.height > grids[0][0] for size in maps[:-1])
        self.fused = FusedMaps(maps[self.finer :])
        self.scale = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 1) for _ in grids)
        self.logits = nn.Conv2d(WIDTH, each * (classes + 1), 1)
        self.offsets = nn.Conv2d(WIDTH, each * 4, 1)
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> SsdOutput:
        """Predict on N images."""
        fused = self.fused(maps[self.finer :])
        logits, offsets = [], []
        for grid, layer in zip(self.grids, self.scale):
            found = torch.relu(layer(F.adaptive_avg_pool2d(fused, grid)))
            logits.append(self._of_anchors(self.logits(found), self.columns))
            offsets.append(self._of_anchors(self.offsets(found), 4))
        return SsdOutput(torch.cat(logits, 1), torch.cat(offsets, 1), self.anchors)

    def _of_anchors(self, found: Tensor, columns: int) -> Tensor:
        """[N, each * columns, H, W] to [N, H * W * each, columns], as torchvision's heads do."""
        count, _, height, width = found.shape
        found = found.view(count, -1, columns, height, width).permute(0, 3, 4, 1, 2)
        return found.reshape(count, -1, columns)
