"""One labeled person as training and measuring take it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from lloss.annotations import PersonLabel
from lloss.errors import LabelError
from lloss.images.decode import Frame, ImageSpec, Pixels, decode_into, size_of
from lloss.pools import Item
from lloss.pools.person_crop_pool import CropItem
from lloss.tasks.pose.joint_targets import PersonTarget
from lloss.tasks.pose.pose_augmentation import STORED_SCALE
from lloss.tasks.task import Decoding


def read_person(item: Item, label: PersonLabel, how: Decoding, out: Pixels) -> PersonTarget:
    """Decode one person and find the joints in it, as :meth:`.Task.example`.

    For training, ``out`` is :data:`.STORED_SCALE` times as large as the input and shows the plain
    cut in its middle, with the image around it (around a whole image: black). Joints that the
    label lacks are not annotated.
    """
    classes, spec = how.classes, how.spec
    rows = {name: row for row, name in enumerate(label.names)}
    if len(rows) < len(label.names):
        raise LabelError(f"{item.id!r}: two joints of one name among {', '.join(label.names)}")
    annotated = np.array([n in rows and bool(label.annotated[rows[n]]) for n in classes], np.bool_)
    places = np.zeros((len(classes), 2))
    places[annotated] = label.joints[[rows[n] for n, known in zip(classes, annotated) if known]]
    region = item.region if isinstance(item, CropItem) else None
    if isinstance(item, CropItem):
        raw = item.cut(STORED_SCALE) if how.for_training else item.read()
        decode_into(raw, spec, out)
        frame = Frame.of(size_of(raw), spec)
        grown = item.region.grown(STORED_SCALE) if how.for_training else item.region
        corner = grown.left, grown.top
    else:
        frame, corner = _whole(item, spec, how.for_training, out), (0, 0)
    if how.cut:
        size = (region.side, region.side) if region else frame.size
        origin = (region.left, region.top) if region else (0, 0)
        how.cut.add(size, (places - origin)[annotated])
    scale = np.array(frame.scale)
    joints = (places - corner) * scale + frame.offset
    return PersonTarget(
        names=tuple(classes),
        joints=torch.from_numpy(joints.astype(np.float32)),
        annotated=torch.from_numpy(annotated),
        size=spec.width,
        pixel=(1 / frame.scale[0], 1 / frame.scale[1]),
        head=label.head,
        side=float(region.side if region else max(frame.size)),
    )


def _whole(item: Item, spec: ImageSpec, for_training: bool, out: Pixels) -> Frame:
    """Decode a whole image into ``out``, or for training into its middle."""
    raw = item.read()
    if not for_training:
        decode_into(raw, spec, out)
        return Frame.of(size_of(raw), spec)
    height, width = round(spec.height / STORED_SCALE), round(spec.width / STORED_SCALE)
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    inner = dataclasses.replace(spec, height=height, width=width)
    middle = np.empty((height, width, 3), np.uint8)
    decode_into(raw, inner, middle)
    out[...] = 0
    out[top : top + height, left : left + width] = middle
    frame = Frame.of(size_of(raw), inner)
    return Frame(frame.size, frame.scale, (frame.offset[0] + left, frame.offset[1] + top))
