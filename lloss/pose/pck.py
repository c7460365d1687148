"""Correct keypoints: PCKh@0.5 as MPII defines it, and what stands in without head sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lloss.annotations import PersonLabel
from lloss.annotations.joints import without_mirror
from lloss.pose.heatmaps import decode, mirrored_back
from lloss.pose.targets import PersonTarget, mirror_order
from lloss.tasks import Meter

PCKH_SHARE = 0.5
"""Of the head size: PCKh@0.5 (Andriluka et al. 2014)."""

SIDE_SHARE = 0.05
"""Of the side of what the network sees, where head sizes are not known; a choice of ours."""

LEFT_OUT = ("pelvis", "thorax")
"""Joints that MPII's mean leaves out."""

HEAD = ("head-top", "upper-neck", "head", "neck", "nose", "eye", "ear")
"""Joints that are reported together as the head."""

MEASURES = {
    True: (
        "PCKh@0.5: an error of at most half the head size, which is 0.6 × the head box's diagonal "
        "or, where the labels have no box, the distance from upper neck to head top in its place, "
        "with which figures compare only where the two are equal"
    ),
    False: (
        f"PCK@{SIDE_SHARE}, not PCKh: head sizes are not known; an error of at most {SIDE_SHARE} "
        "of the side of what the network sees"
    ),
}
"""What the figures are, by whether errors are held against head sizes."""

_SIDE = re.compile(r"^(l|r|left|right)[-_ ]")


def group_of(joint: str) -> str:
    """What a joint is reported under: ``r-knee`` and ``left_knee`` are both a ``knee``."""
    base = _SIDE.sub("", joint).replace("_", "-")
    return "head" if base in HEAD else base


def heads_known(labels: Sequence[PersonLabel]) -> bool:
    """Whether all persons have a head size, so that one measure fits all."""
    return bool(labels) and all(math.isfinite(label.head) for label in labels)


@dataclass
class Pck(Meter):
    """Counts joints that lie near enough to the truth.

    A joint is right if its error is **at most** the share of the normaliser, both in pixels of the
    original image. Only annotated joints count (such as lie outside of the input as well), pelvis
    and thorax do not; the mean is over joints, not over groups or persons.

    Args:
        names: of the joints.
        by_head: whether errors are held against head sizes. Else it is the side of what the network
            sees, for all persons, and nothing is called PCKh.
        mirrored: whether the heatmaps are averaged with those of the mirrored image.
    """

    names: tuple[str, ...]
    by_head: bool
    mirrored: bool = False
    right: Tensor = field(init=False)
    total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.right = torch.zeros(len(self.names), dtype=torch.int64)
        self.total = torch.zeros(len(self.names), dtype=torch.int64)

    def update(self, output: Any, targets: Sequence[PersonTarget], mirror: Any = None) -> None:
        """Count a batch.

        Args:
            output: heatmaps, float [N, stacks, J, H, W]; the last stack is judged.
            targets: of inputs four times as large (or whatever the network's stride is).
            mirror: heatmaps of the mirrored images, if asked for.
        """
        heatmaps = output[:, -1].float().cpu()
        if mirror is not None:
            order = torch.tensor(mirror_order(self.names))
            both = (heatmaps + mirrored_back(mirror[:, -1].float().cpu(), order)) / 2
            # A joint of one side whose other side the network does not know is not in the mirror.
            alone = torch.tensor(without_mirror(self.names))
            heatmaps = torch.where(alone[:, None, None], heatmaps, both)
        places, _ = decode(heatmaps)
        for row, target in enumerate(targets):
            self._count(places[row], target, heatmaps.shape[-1])

    def _count(self, places: Tensor, target: PersonTarget, width: int) -> None:
        error = places * (target.size / width) - target.joints
        distance = (error * torch.tensor(target.pixel)).norm(dim=-1)
        limit = PCKH_SHARE * target.head if self.by_head else SIDE_SHARE * target.side
        self.right += (distance <= limit) & target.annotated
        self.total += target.annotated

    def figures(self) -> dict[str, float]:
        """``pck`` over all joints that count; the same as ``pckh`` if it is that; each group."""
        groups: dict[str, list[int]] = {}
        for number, name in enumerate(self.names):
            if group_of(name) not in LEFT_OUT:
                groups.setdefault(group_of(name), []).append(number)
        mean = self._share([number for group in groups.values() for number in group])
        figures = {"pck": mean, **({"pckh": mean} if self.by_head else {})}
        return figures | {f"PCK {name}": self._share(group) for name, group in groups.items()}

    def _share(self, joints: Sequence[int]) -> float:
        total = int(self.total[list(joints)].sum())
        return int(self.right[list(joints)].sum()) / total if total else math.nan

    def notes(self) -> list[str]:
        """What the figures mean."""
        averaging = "on" if self.mirrored else "off"
        return [
            f"pck is {MEASURES[self.by_head]}; pelvis and thorax are left out",
            f"flip averaging: {averaging}",
        ]
