"""Joints by name: the sets of MPII and COCO, their mirror images, and what a skeleton joins."""

from __future__ import annotations

import re
from collections.abc import Sequence

MPII = (
    "r-ankle", "r-knee", "r-hip", "l-hip", "l-knee", "l-ankle", "pelvis", "thorax",
    "upper-neck", "head-top", "r-wrist", "r-elbow", "r-shoulder", "l-shoulder", "l-elbow",
    "l-wrist",
)  # fmt: skip
"""The joints of MPII, in the order of its files."""

COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""The joints of COCO's persons, in the order of its files."""

_SIDES = {"l": "r", "r": "l", "left": "right", "right": "left"}

_LIMBS = (
    ("l-ankle", "l-knee"), ("l-knee", "l-hip"), ("l-hip", "l-shoulder"),
    ("l-shoulder", "l-elbow"), ("l-elbow", "l-wrist"),
    ("l-eye", "l-ear"), ("nose", "l-eye"), ("l-shoulder", "upper-neck"),
    ("l-hip", "r-hip"), ("l-shoulder", "r-shoulder"), ("upper-neck", "head-top"),
)  # fmt: skip
"""Joints of left and middle, in MPII's spelling; the right is the mirror image. Pelvis and thorax
are on lines between others, and many sets lack them: nothing is drawn to those."""


def flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The joints that change places in the mirror: pairs of their numbers, the lower one first.

    A part ``l``/``r`` or ``left``/``right`` of a name says its side: ``l-hip``, ``left_hip``, ``hip
    left``.
    """
    number = {name.lower(): place for place, name in enumerate(names)}
    pairs = set()
    for name, place in number.items():
        other = number.get(_mirrored(name))
        if other is not None and other != place:
            pairs.add((min(place, other), max(place, other)))
    return tuple(sorted(pairs))


def without_mirror(names: Sequence[str]) -> tuple[bool, ...]:
    """Mark the joints of one side whose other side is not among the names."""
    there = {name.lower() for name in names}
    mirrored = [(name.lower(), _mirrored(name)) for name in names]
    return tuple(name != other and other not in there for name, other in mirrored)


def skeleton(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The joints that lines join in a drawing, as pairs of numbers; by the names of MPII and
    COCO.
    """
    number = {_plain(name): place for place, name in enumerate(names)}
    both = ((tuple(map(_mirrored, limb)), limb) for limb in _LIMBS)
    limbs = dict.fromkeys(
        pair for mirror, limb in both for pair in (limb, mirror) if pair != limb[::-1]
    )
    found = ((number.get(first), number.get(second)) for first, second in limbs)
    return tuple((a, b) for a, b in found if a is not None and b is not None)


def _parts(name: str) -> list[str]:
    return re.split(r"([-_. ])", name.lower())


def _mirrored(name: str) -> str:
    return "".join(_SIDES.get(part, part) for part in _parts(name))


def _plain(name: str) -> str:
    """A name in MPII's spelling: ``left_hip`` is ``l-hip``."""
    short = {"left": "l", "right": "r"}
    return "".join("-" if p in ("_", ".", " ") else short.get(p, p) for p in _parts(name))
