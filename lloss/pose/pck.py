"""Correct keypoints: PCKh@0.5 as MPII defines it, and what stands in without head sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lloss.annotations import PersonLabel
from lloss.pose.heatmaps import decode, mirrored_back
from lloss.pose.targets import PersonTarget, mirror_order

PCKH_SHARE = 0.5
"""Of the head size: PCKh@0.5 (Andriluka et al. 2014)."""

SIDE_SHARE = 0.05
"""Of the side of what the network sees, where head sizes are not known. About as strict: half a
head size is 0.05 to 0.06 of the square around a standing person."""

Normaliser = Literal["head", "segment", "side"]
"""What errors are held against; see :func:`normaliser_of`."""

LEFT_OUT = ("pelvis", "thorax")
"""Joints that MPII's mean leaves out."""

HEAD = ("head-top", "upper-neck", "head", "neck", "nose", "eye", "ear")
"""Joints that are reported together as the head."""

SEGMENT = {"upper-neck", "head-top"}
"""Joints whose distance is the head's length."""

MEASURES: dict[Normaliser, str] = {
    "head": "PCKh@0.5: an error of at most half of 0.6 × the head box's diagonal",
    "segment": (
        "like PCKh@0.5, but where there is no head box an error of at most half the distance from "
        "upper neck to head top"
    ),
    "side": (
        f"PCK@{SIDE_SHARE}, not PCKh: head sizes are not known; an error of at most {SIDE_SHARE} "
        "of the side of what the network sees"
    ),
}

_SIDE = re.compile(r"^(l|r|left|right)[-_ ]")


def group_of(joint: str) -> str:
    """What a joint is reported under: ``r-knee`` and ``left_knee`` are both a ``knee``."""
    base = _SIDE.sub("", joint).replace("_", "-")
    return "head" if base in HEAD else base


def head_size(label: PersonLabel) -> float:
    """What PCKh divides by, in pixels of the image.

    That is 0.6 of the head box's diagonal; where there is no box, the length that this stands for,
    from upper neck to head top; NaN where that is not annotated either.
    """
    if math.isfinite(label.head):
        return label.head
    rows = {name: row for row, name in enumerate(label.names) if label.annotated[row]}
    if not rows.keys() >= SEGMENT:
        return math.nan
    neck, top = (label.joints[rows[name]].tolist() for name in sorted(SEGMENT))
    return math.dist(neck, top) or math.nan


def normaliser_of(labels: Sequence[PersonLabel]) -> Normaliser:
    """What the errors of these persons can be held against, one measure for all.

    Returns:
        ``head`` if all head boxes are known, ``segment`` if else all have a :func:`head_size`,
        otherwise ``side``: of what the network sees.
    """
    if not labels or not all(math.isfinite(head_size(label)) for label in labels):
        return "side"
    return "head" if all(math.isfinite(label.head) for label in labels) else "segment"


@dataclass
class Pck:
    """Counts joints that lie near enough to the truth; a :class:`lloss.tasks.Meter`.

    A joint is right if its error is **at most** the share of the normaliser, both in pixels of the
    original image. Only annotated joints count, pelvis and thorax do not; the mean is over joints,
    not over groups or persons.

    Args:
        names: of the joints.
        normaliser: of all persons. Only with ``head`` anything is called PCKh.
        mirrored: whether the heatmaps are averaged with those of the mirrored image.
    """

    names: tuple[str, ...]
    normaliser: Normaliser
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
            heatmaps = (heatmaps + mirrored_back(mirror[:, -1].float().cpu(), order)) / 2
        places, _ = decode(heatmaps)
        for row, target in enumerate(targets):
            self._count(places[row], target, heatmaps.shape[-1])

    def _count(self, places: Tensor, target: PersonTarget, width: int) -> None:
        error = places * (target.size / width) - target.joints
        distance = (error * torch.tensor(target.pixel)).norm(dim=-1)
        by_side = self.normaliser == "side"
        limit = SIDE_SHARE * target.side if by_side else PCKH_SHARE * target.head
        self.right += (distance <= limit) & target.annotated
        self.total += target.annotated

    def figures(self) -> dict[str, float]:
        """``pck`` over all joints that count; the same as ``pckh`` if it is that; each group."""
        groups: dict[str, list[int]] = {}
        for number, name in enumerate(self.names):
            if group_of(name) not in LEFT_OUT:
                groups.setdefault(group_of(name), []).append(number)
        mean = self._share([number for group in groups.values() for number in group])
        figures = {"pck": mean, **({"pckh": mean} if self.normaliser == "head" else {})}
        return figures | {f"PCK {name}": self._share(group) for name, group in groups.items()}

    def _share(self, joints: Sequence[int]) -> float:
        total = int(self.total[list(joints)].sum())
        return int(self.right[list(joints)].sum()) / total if total else math.nan

    def notes(self) -> list[str]:
        """What the figures mean."""
        averaging = "on" if self.mirrored else "off"
        return [
            f"pck is {MEASURES[self.normaliser]}; pelvis and thorax are left out",
            f"flip averaging: {averaging}",
        ]
