"""One labeled person as training and measuring take it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.annotations import PersonLabel
from lloss.errors import LabelError
from lloss.images.cut_off import CutOff
from lloss.images.decode import Frame, ImageSpec, Pixels, decode_into, size_of
from lloss.pools import Item
from lloss.pools.person_crops import CropItem
from lloss.tasks.pose.joint_targets import PersonTarget
from lloss.tasks.pose.pose_augmentation import STORED_SCALE


def read_person(
    item: Item,
    label: PersonLabel,
    names: Sequence[str],
    spec: ImageSpec,
    for_training: bool,
    out: Pixels,
    cut: CutOff | None = None,
) -> PersonTarget:
    """Decode one person and find the joints in it.

    Args:
        item: a square of an image, or a whole image.
        label: its joints.
        names: joints of the network; such as the label does not have are not annotated.
        spec: of ``out``.
        for_training: whether ``out`` is :data:`.STORED_SCALE` times as large as the input
            and shows the plain cut in its middle, with what lies around it (around a whole image:
            black). Otherwise the pixels are those that a scorer decodes.
        out: uint8 [spec.height, spec.width, 3], written whole.
        cut: counts the joints that the input does not show.

    Raises:
        ImageError: the image cannot be decoded.
        LabelError: two joints of the label have one name.
    """
    if isinstance(item, CropItem):
        frame, left, top = _square(item, spec, for_training, out)
    else:
        frame, left, top = _whole(item, spec, for_training, out)
    places, annotated = _joints(item.id, label, names)
    region = item.region if isinstance(item, CropItem) else None
    if cut:
        size = (region.side, region.side) if region else frame.size
        corner = (region.left, region.top) if region else (0, 0)
        cut.add(size, (places - corner)[annotated])
    (scale_x, scale_y), (offset_x, offset_y) = frame.scale, frame.offset
    joints = (places - [left, top]) * [scale_x, scale_y] + [offset_x, offset_y]
    return PersonTarget(
        names=tuple(names),
        joints=torch.from_numpy(joints.astype(np.float32)),
        annotated=torch.from_numpy(annotated),
        size=spec.width,
        pixel=(1 / scale_x, 1 / scale_y),
        head=label.head,
        side=float(region.side if region else max(frame.size)),
    )


def _square(
    item: CropItem, spec: ImageSpec, for_training: bool, out: Pixels
) -> tuple[Frame, float, float]:
    """Decode; where the cut lies in ``out``, and its left upper corner in the image."""
    region = item.region.grown(STORED_SCALE) if for_training else item.region
    raw = item.cut(STORED_SCALE) if for_training else item.read()
    decode_into(raw, spec, out)
    return Frame.of(size_of(raw), spec), region.left, region.top


def _whole(
    item: Item, spec: ImageSpec, for_training: bool, out: Pixels
) -> tuple[Frame, float, float]:
    raw = item.read()
    if not for_training:
        decode_into(raw, spec, out)
        return Frame.of(size_of(raw), spec), 0.0, 0.0
    height, width = round(spec.height / STORED_SCALE), round(spec.width / STORED_SCALE)
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    inner = dataclasses.replace(spec, height=height, width=width)
    middle = np.empty((height, width, 3), np.uint8)
    decode_into(raw, inner, middle)
    out[...] = 0
    out[top : top + height, left : left + width] = middle
    frame = Frame.of(size_of(raw), inner)
    moved = Frame(frame.size, frame.scale, (frame.offset[0] + left, frame.offset[1] + top))
    return moved, 0.0, 0.0


def _joints(
    id: str, label: PersonLabel, names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Places float64 [J, 2] and whether annotated, in the order of ``names``."""
    rows = {name: row for row, name in enumerate(label.names)}
    if len(rows) < len(label.names):
        raise LabelError(f"{id!r}: two joints of one name among {', '.join(label.names)}")
    places = np.zeros((len(names), 2))
    annotated = np.zeros(len(names), np.bool_)
    for number, name in enumerate(names):
        row = rows.get(name)
        if row is not None and label.annotated[row]:
            places[number], annotated[number] = label.joints[row], True
    return places, annotated
