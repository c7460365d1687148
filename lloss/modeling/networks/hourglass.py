"""Stacked Hourglass (Newell, Yang & Deng 2016): heatmaps of joints, refined from stack to stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lloss.errors import SettingsError

DEPTH = 4  # How often an hourglass halves the resolution
STRIDE = 4  # Pixels of the input to one of a heatmap

MULTIPLE = STRIDE * 2**DEPTH
"""Sides of the input are multiples of this: then every halving comes out even."""

HEATMAP_STD = 0.001
"""Standard deviation of the heatmap layers' first weights: with torch's own the first epochs would
only bring noise down to 0, where most of a target is. (Not in the paper.)"""

NAMES = {
    f"hourglass{stacks}{suffix}": (stacks, width)
    for stacks in range(1, 9)
    for suffix, width in (("", 256), ("-narrow", 64))
}
"""Stacks and channels. The narrow networks take a sixteenth of the arithmetic."""


class Residual(nn.Module):
    """A pre-activation bottleneck: 1×1 to half the width, 3×3, 1×1; around it the input itself."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, width // 2, 1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width, 1),
        )
        self.skip = nn.Identity() if inputs == width else nn.Conv2d(inputs, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, inputs, H, W] to [N, width, H, W]."""
        added: Tensor = self.skip(x) + self.body(x)
        return added


class Hourglass(nn.Module):
    """Down to a 2**depth-th of the resolution and up again, with a branch at each resolution."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.branch = Residual(width, width)
        self.down = Residual(width, width)
        self.inner = Hourglass(depth - 1, width) if depth > 1 else Residual(width, width)
        self.up = Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, width, H, W] to the same shape."""
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        joined: Tensor = self.branch(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")
        return joined


class StackedHourglass(nn.Module):
    """Hourglasses one after another, each giving heatmaps that are trained (figure 4 of the paper).

    The next hourglass sees what the one before saw, plus its map and its heatmaps, both brought
    back to ``width`` channels by 1×1 convolutions. The module ``maps.K`` gives the map of the K-th
    stack, float [N, width, S/4, S/4].

    The stem starts with a quarter of the channels.
    """

    def __init__(self, joints: int, stacks: int = 2, width: int = 256) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 4, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            Residual(width // 4, width // 2),
            nn.MaxPool2d(2),
            Residual(width // 2, width // 2),
            Residual(width // 2, width),
        )
        repeated = range(stacks)
        self.hourglasses = nn.ModuleList(Hourglass(DEPTH, width) for _ in repeated)
        self.maps = nn.ModuleList(_map(width) for _ in repeated)
        self.heatmaps = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in repeated)
        self.map_remaps = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in repeated[1:])
        self.heatmap_remaps = nn.ModuleList(nn.Conv2d(joints, width, 1) for _ in repeated[1:])
        for layer in self.heatmaps.children():  # nearly all of a target is 0
            nn.init.normal_(layer.get_parameter("weight"), std=HEATMAP_STD)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, images: Tensor) -> Tensor:
        """Heatmaps of all stacks, float [N, stacks, joints, H/4, W/4], of float [N, 3, H, W]."""
        for side in images.shape[-2:]:
            check_size(side)
        x, all_heatmaps = self.stem(images), []
        for number, hourglass in enumerate(self.hourglasses):
            features = self.maps[number](hourglass(x))
            heatmaps = self.heatmaps[number](features)
            all_heatmaps.append(heatmaps)
            if number < len(self.map_remaps):
                again = self.map_remaps[number](features) + self.heatmap_remaps[number](heatmaps)
                x = x + again
        return torch.stack(all_heatmaps, 1)


def _map(width: int) -> nn.Sequential:
    """What follows an hourglass: a residual and a linear layer."""
    return nn.Sequential(
        Residual(width, width),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def check_size(side: int) -> None:
    """Refuse a side of the input that is not a multiple of 64, with a ``SettingsError``."""
    if side < 1 or side % MULTIPLE:
        nearest = max(1, round(side / MULTIPLE)) * MULTIPLE
        raise SettingsError(
            f"size = {side}: an hourglass takes multiples of {MULTIPLE} pixels; use {nearest}"
        )


def stacks_of(name: str) -> int:
    """Return the number of stacks of a network by its name."""
    return _parsed(name)[0]


def build_hourglass(name: str, joints: int) -> StackedHourglass:
    """Build one of :data:`NAMES`; another name is a ``SettingsError``."""
    return StackedHourglass(joints, *_parsed(name))


def _parsed(name: str) -> tuple[int, int]:
    if name not in NAMES:
        raise SettingsError(
            f"model {name!r}: no network for pose; choose hourglass1 to hourglass8, "
            "for a CPU hourglass1-narrow"
        )
    return NAMES[name]
