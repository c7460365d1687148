"""ResNet for 32×32 images: a 3×3 stem of stride 1 and no max-pool (He et al. 2016, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class CifarResNet(nn.Module):
    """A 3×3 stem, stages of so many channels and blocks, halving after the first; a classifier."""

    def __init__(self, classes: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        stages, channels = [], widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks)):
            stages.append(_stage(channels, width, count, stride=1 if number == 0 else 2))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float [N, classes], of float [N, 3, H, W]."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def _stage(channels: int, width: int, count: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels != width:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        )
    first = BasicBlock(channels, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(count - 1)))


def resnet18(classes: int) -> CifarResNet:
    """ResNet-18 with a 3×3 stem: the paper's network for CIFAR-10, 11.2 million parameters."""
    return CifarResNet(classes, (64, 128, 256, 512), (2, 2, 2, 2))


def resnet10_narrow(classes: int) -> CifarResNet:
    """One block a stage and a quarter of the width: 0.3 million parameters, for small images."""
    return CifarResNet(classes, (16, 32, 64, 128), (1, 1, 1, 1))
