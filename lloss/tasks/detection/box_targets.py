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
from lloss.tasks.detection.average_precision import Truth


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The known objects of one image.

    Attributes:
        boxes: float32 [M, 4]: x0, y0, x1, y1 in pixels.
        labels: int64 [M], from 1: 0 is the background.
        difficult: bool [M]: trained on, but neither counted nor held against a detection.
        crowd: bool [M]: likewise, and not trained on.
        frame: x0, y0, x1, y1 in whole pixels of where the image lies; around it is padding.
        truth: all objects of the image, those that the input cuts off too, with their boxes as far
            as the image goes: what detections in the unchanged input are measured by.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    crowd: Tensor
    frame: tuple[int, int, int, int]
    truth: Truth | None = None

    @classmethod
    def of(
        cls, label: ObjectLabel, classes: Sequence[str], frame: Frame, height: int, width: int
    ) -> Objects:
        """Objects of a label in an image of this height and width.

        Those of unknown classes are left out, and those whose centre the fit cuts off; the boxes of
        others end where the pixels do. Only ``truth`` has what is cut off.
        """
        numbers = {name: number for number, name in enumerate(classes, 1)}
        labels = torch.tensor([numbers.get(name, 0) for name in label.names], dtype=torch.int64)
        scale = np.tile(np.array(frame.scale), 2)
        offset = np.tile(np.array(frame.offset), 2)
        end = [x + s * side for x, s, side in zip(frame.offset, frame.scale, frame.size[::-1])]
        pixels = (
            max(0, round(frame.offset[0])),
            max(0, round(frame.offset[1])),
            min(width, round(end[0])),
            min(height, round(end[1])),
        )
        objects = cls(
            torch.from_numpy((label.boxes * scale + offset).astype(np.float32)),
            labels,
            torch.from_numpy(label.difficult.copy()),
            torch.from_numpy(label.crowd.copy()),
            pixels,
        ).take(labels > 0)
        known = objects.within(*frame.offset, *end)  # of the image, shown or not
        return dataclasses.replace(objects.within(*pixels), truth=known.as_truth())

    def as_truth(self) -> Truth:
        """The objects as detections are judged by."""
        boxes, labels = self.boxes.numpy(), self.labels.numpy()
        return Truth(boxes, labels, self.difficult.numpy(), self.crowd.numpy())

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: Tensor) -> Objects:
        """Those of a mask, bool [M], or of indices."""
        return dataclasses.replace(
            self,
            boxes=self.boxes[which],
            labels=self.labels[which],
            difficult=self.difficult[which],
            crowd=self.crowd[which],
        )

    def within(self, x0: float, y0: float, x1: float, y1: float) -> Objects:
        """Those whose centre lies within, their boxes clipped to it."""
        low, high = torch.tensor([x0, y0, x0, y0]), torch.tensor([x1, y1, x1, y1])
        centre = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        inside = ((centre > low[:2]) & (centre < high[:2])).all(1)
        clipped = self.boxes.minimum(high.float()).maximum(low.float())
        extended = (clipped[:, 2:] > clipped[:, :2]).all(1)
        return dataclasses.replace(self, boxes=clipped).take(inside & extended)

    def moved(
        self, scale: tuple[float, float], offset: tuple[float, float], width: int, height: int
    ) -> Objects:
        """In another image, of this width and height: ``box * scale + offset``, clipped to it."""
        boxes = self.boxes * torch.tensor([*scale, *scale]) + torch.tensor([*offset, *offset])
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        return dataclasses.replace(self, boxes=boxes, frame=(0, 0, width, height))

    def mirrored(self, width: int) -> Objects:
        """Left and right exchanged."""
        x0, y0, x1, y1 = self.boxes.unbind(1)
        left, top, right, bottom = self.frame
        return dataclasses.replace(
            self,
            boxes=torch.stack([width - x1, y0, width - x0, y1], 1),
            frame=(width - right, top, width - left, bottom),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ObjectBatch:
    """What the loss is computed on: the objects of N images, filled up to the most of any.

    Attributes:
        boxes: float32 [N, M, 4]; zeros are filling.
        labels: int64 [N, M]; 0 is filling.
        counts: how many of each image are real.
    """

    boxes: Tensor
    labels: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, targets: Sequence[Objects]) -> ObjectBatch:
        """The objects that are trained on: crowds are none."""
        single = [objects.take(~objects.crowd) for objects in targets]
        return cls(
            pad_sequence([objects.boxes for objects in single], batch_first=True),
            pad_sequence([objects.labels for objects in single], batch_first=True),
            tuple(map(len, single)),
        )

    def to(self, device: torch.device | str) -> ObjectBatch:
        """On a device."""
        return ObjectBatch(self.boxes.to(device), self.labels.to(device), self.counts)
