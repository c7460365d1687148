"""The joints of a person in pixels of the network's input."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lloss.annotations.joint_names import flip_pairs


@dataclass(frozen=True, slots=True, eq=False)
class PersonTarget:
    """The joints of one person in the pixels of one input."""

    names: tuple[str, ...]  # of the joints
    joints: Tensor  # x, y, the centre of the first pixel being 0.5, 0.5; float32 [J, 2]
    annotated: Tensor  # joints with a label, inside the input or not; bool [J]
    size: int  # side of the input in pixels
    # Width and height of a pixel of the input in pixels of the original image
    pixel: tuple[float, float]
    head: float  # what PCKh divides by, in pixels of the original image; NaN if unknown
    # Of what the network sees, in pixels of the original image: of the person's square, or the
    # longer one of a whole image
    side: float

    @property
    def inside(self) -> Tensor:
        """Which joints are in the input; bool [J]."""
        return ((self.joints >= 0) & (self.joints < self.size)).all(1)


@dataclass(frozen=True, slots=True, eq=False)
class PoseTargets:
    """The joints of a batch."""

    joints: Tensor  # x, y as shares of the input's width and height; float32 [N, J, 2]
    annotated: Tensor  # joints with a label that are inside the input; bool [N, J]

    @classmethod
    def of(cls, targets: Sequence[PersonTarget]) -> PoseTargets:
        """Collate the targets of some inputs."""
        joints = torch.stack([target.joints / target.size for target in targets])
        return cls(joints, torch.stack([target.annotated & target.inside for target in targets]))

    def to(self, device: torch.device) -> PoseTargets:
        """Move to a device."""
        return PoseTargets(self.joints.to(device), self.annotated.to(device))

    def on(self, heatmaps: Tensor) -> Tensor:
        """Return the joints in pixels of heatmaps, float32 [N, J, 2]."""
        height, width = heatmaps.shape[-2:]
        return self.joints * self.joints.new_tensor([width, height])


@functools.cache
def mirror_order(names: tuple[str, ...]) -> tuple[int, ...]:
    """Return for each joint its number in the mirror: left and right change places."""
    order = list(range(len(names)))
    for one, other in flip_pairs(names):
        order[one], order[other] = other, one
    return tuple(order)
