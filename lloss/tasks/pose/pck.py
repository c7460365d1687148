"""Correct keypoints: PCKh@0.5 as MPII defines it, and PCK@0.05 without head sizes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
import torch

from lloss.annotations import PersonLabel
from lloss.modeling.objective import Meter
from lloss.statistics.confidence_intervals import Floats
from lloss.tasks.pose.heatmaps import decode
from lloss.tasks.pose.joint_targets import PersonTarget

PCKH_SHARE = 0.5  # Of the head size: PCKh@0.5 (Andriluka et al. 2014)

SIDE_SHARE = 0.05
"""Share of the person's square that counts as near if head sizes are unknown; our choice."""

LEFT_OUT = ("pelvis", "thorax")  # Joints that MPII's mean leaves out

HEAD = ("head-top", "upper-neck", "head", "neck", "nose", "eye", "ear")
"""Joints that are reported together as the head."""

MEASURES = {
    True: (
        "PCKh@0.5: an error of at most half the head size, which is 0.6 × the head box's diagonal "
        "or, without a box, the distance from upper neck to head top"
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


def annotated_names(label: PersonLabel) -> set[str]:
    """The joints of a person that are annotated."""
    return {name for name, annotated in zip(label.names, label.annotated) if annotated}


@dataclass
class Pck(Meter):
    """Counts joints that are near enough to the truth.

    A joint is right if its error is **at most** the share of the normaliser, both in pixels of the
    original image. Only annotated joints count, those outside of the input and those that the
    network does not have as well, pelvis and thorax do not; the mean is over joints, not over
    groups or persons.
    """

    names: tuple[str, ...]  # of the joints
    # Whether errors are divided by head sizes; else by the side of what the network sees
    by_head: bool
    # Of each person, in the order of the updates, the annotated joints that the network lacks
    unknown: Sequence[Collection[str]] = ()
    right: list[Counter[str]] = field(default_factory=list, init=False)  # of a person, by group
    total: list[Counter[str]] = field(default_factory=list, init=False)

    def update(self, output: Any, targets: Sequence[PersonTarget]) -> None:
        """Judge the last stack of heatmaps, [N, stacks, J, H, W]."""
        heatmaps = output[:, -1].float().cpu()
        places, _ = decode(heatmaps)
        for found, target in zip(places, targets):
            error = found * (target.size / heatmaps.shape[-1]) - target.joints
            distance = (error * torch.tensor(target.pixel)).norm(dim=-1)
            limit = PCKH_SHARE * target.head if self.by_head else SIDE_SHARE * target.side
            near = (distance <= limit) & target.annotated
            missed = self.unknown[self.images] if self.unknown else ()
            self.right.append(_by_group(compress(self.names, near)))
            self.total.append(_by_group([*compress(self.names, target.annotated), *missed]))
            self.images += 1

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """``pck`` over all joints that count; the same as ``pckh`` if it is that; each group."""
        groups = list(dict.fromkeys(group for counts in self.total for group in counts))
        shape = self.images, len(groups)
        right, total = (
            weights @ np.array([[float(c[g]) for g in groups] for c in counts]).reshape(shape)
            for counts in (self.right, self.total)
        )
        with np.errstate(invalid="ignore"):
            mean, shares = right.sum(1) / total.sum(1), right / total
        each = {f"PCK {group}": share for group, share in zip(groups, shares.T)}
        return {"pck": mean, **({"pckh": mean} if self.by_head else {}), **each}

    def notes(self) -> list[str]:
        return [f"pck is {MEASURES[self.by_head]}; without pelvis and thorax, no flip averaging"]


def _by_group(joints: Iterable[str]) -> Counter[str]:
    groups = map(group_of, joints)
    return Counter(group for group in groups if group not in LEFT_OUT)
