"""The objects of an image in pixels of the network's input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lloss.annotations import ObjectLabel
from lloss.images.decode import Frame


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects of one image."""

    boxes: Tensor  # float32 [M, 4]: x0, y0, x1, y1 in pixels
    labels: Tensor  # int64 [M], from 1: 0 is the background
    difficult: Tensor  # bool [M]: trained on; finding it neither helps nor hurts
    # Bool [M]: a region of many, not trained on; detections inside are no mistakes
    crowd: Tensor
    # x0, y0, x1, y1 in whole pixels of the image itself; around it is padding
    frame: tuple[int, int, int, int]
    # All objects of the image, those that the input cuts off too, with their boxes as far as the
    # image goes: what detections in the unchanged input are measured by
    truth: Objects | None = None

    @classmethod
    def of(
        cls, label: ObjectLabel, classes: Sequence[str], frame: Frame, height: int, width: int
    ) -> Objects:
        """Place the objects of a label in an image of this height and width.

        Those of unknown classes are left out, and those whose centre the fit cuts off; the boxes of
        others end where the pixels do. Only ``truth`` has what is cut off.
        """
        numbers = {name: number for number, name in enumerate(classes, 1)}
        labels = torch.tensor([numbers.get(name, 0) for name in label.names], dtype=torch.int64)
        (x0, y0), (scale_x, scale_y) = frame.offset, frame.scale
        x1, y1 = x0 + scale_x * frame.size[1], y0 + scale_y * frame.size[0]
        pixels = max(0, round(x0)), max(0, round(y0)), min(width, round(x1)), min(height, round(y1))
        boxes = label.boxes * np.tile(np.array(frame.scale), 2) + np.tile(np.array(frame.offset), 2)
        objects = cls(
            torch.from_numpy(boxes.astype(np.float32)),
            labels,
            torch.from_numpy(label.difficult.copy()),
            torch.from_numpy(label.crowd.copy()),
            pixels,
        ).take(labels > 0)
        whole = objects.within(x0, y0, x1, y1)  # of the image, shown or not
        return dataclasses.replace(objects.within(*pixels), truth=whole)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: Tensor) -> Objects:
        """Select by a mask, bool [M], or by indices."""
        fields = ("boxes", "labels", "difficult", "crowd")
        return dataclasses.replace(self, **{name: getattr(self, name)[which] for name in fields})

    def within(self, x0: float, y0: float, x1: float, y1: float) -> Objects:
        """Select those whose centre is within, their boxes clipped to it."""
        low, high = torch.tensor([x0, y0, x0, y0]), torch.tensor([x1, y1, x1, y1])
        centre = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        inside = ((centre > low[:2]) & (centre < high[:2])).all(1)
        clipped = self.boxes.minimum(high.float()).maximum(low.float())
        extended = (clipped[:, 2:] > clipped[:, :2]).all(1)
        return dataclasses.replace(self, boxes=clipped).take(inside & extended)

    def moved(
        self, scale: tuple[float, float], offset: tuple[float, float], width: int, height: int
    ) -> Objects:
        """Move into an image of this width and height: ``box * scale + offset``, clipped to it."""
        boxes = self.boxes * torch.tensor([*scale, *scale]) + torch.tensor([*offset, *offset])
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        return dataclasses.replace(self, boxes=boxes, frame=(0, 0, width, height))

    def mirrored(self, width: int) -> Objects:
        """Exchange left and right."""
        x0, y0, x1, y1 = self.boxes.unbind(1)
        left, top, right, bottom = self.frame
        boxes = torch.stack([width - x1, y0, width - x0, y1], 1)
        return dataclasses.replace(
            self, boxes=boxes, frame=(width - right, top, width - left, bottom)
        )


@dataclass(frozen=True, slots=True, eq=False)
class ObjectBatch:
    """What the loss is computed on: the objects of N images, padded to the most of any."""

    boxes: Tensor  # float32 [N, M, 4]; zeros are padding
    labels: Tensor  # int64 [N, M]; 0 is padding
    counts: tuple[int, ...]  # how many of each image are real

    @classmethod
    def of(cls, targets: Sequence[Objects]) -> ObjectBatch:
        """Collate the objects that are trained on, without crowds."""
        single = [objects.take(~objects.crowd) for objects in targets]
        return cls(
            pad_sequence([objects.boxes for objects in single], batch_first=True),
            pad_sequence([objects.labels for objects in single], batch_first=True),
            tuple(map(len, single)),
        )

    def to(self, device: torch.device | str) -> ObjectBatch:
        """Move to a device."""
        return ObjectBatch(self.boxes.to(device), self.labels.to(device), self.counts)
