"""Mean average precision of a detector, gathered batch by batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lloss.annotations import ObjectLabel
from lloss.detection.precision import AveragePrecision, Detections, Truth
from lloss.detection.ssd import SsdOutput, reference
from lloss.detection.targets import Objects


def detect(output: SsdOutput, model: str, size: int) -> list[dict[str, Tensor]]:
    """Decode, and drop what overlaps a better detection: torchvision's own postprocessing.

    Args:
        output: of N images.
        model: whose thresholds are used.
        size: side of the input; boxes end there.

    Returns:
        For each image, sorted by falling score: ``boxes`` float [D, 4], ``scores`` float [D],
        ``labels`` int64 [D], from 1.
    """
    count = len(output.logits)
    heads = {
        "cls_logits": output.logits.detach().float(),
        "bbox_regression": output.offsets.detach().float(),
    }
    with torch.autocast(output.logits.device.type, enabled=False):
        found: list[dict[str, Tensor]] = reference(model).postprocess_detections(
            heads, [output.anchors] * count, [(size, size)] * count
        )
    return found


class DetectionMeter:
    """Average precisions at IoU .5 in pixels of the input; see :class:`lloss.tasks.Meter`.

    Args:
        labels: of the images; a class that occurs among them and that the network does not have
            has an average precision of 0.
        classes: of the network.
        model: its name.
        size: side of its input.
    """

    mirrored = False

    def __init__(
        self, labels: Sequence[ObjectLabel], classes: Sequence[str], model: str, size: int
    ) -> None:
        self.classes, self.model, self.size = tuple(classes), model, size
        self.precision = AveragePrecision()
        counted = {
            name
            for label in labels
            for name, left_out in zip(label.names, label.difficult | label.crowd)
            if not left_out
        }
        self.unknown = sorted(counted - set(classes))

    def update(self, output: SsdOutput, targets: Sequence[Objects], mirror: Any = None) -> None:
        """Judge what the network found on a batch."""
        for found, objects in zip(detect(output, self.model, self.size), targets):
            arrays = {name: value.cpu().numpy() for name, value in found.items()}
            truth = Truth(
                objects.boxes.numpy(),
                objects.labels.numpy(),
                objects.difficult.numpy(),
                objects.crowd.numpy(),
            )
            self.precision.add(Detections(**arrays), truth)

    def figures(self) -> dict[str, float]:
        """``map`` by area, ``map_11point``, and ``AP <class>`` by area.

        Means are over the classes of which an object counts; NaN if there is none.
        """
        area = {name: self.precision.area(n) for n, name in enumerate(self.classes, 1)}
        points = {name: self.precision.at_levels(n) for n, name in enumerate(self.classes, 1)}
        area.update(dict.fromkeys(self.unknown, 0.0))
        points.update(dict.fromkeys(self.unknown, 0.0))
        single = {f"AP {name}": value for name, value in area.items() if not math.isnan(value)}
        return {"map": _mean(area), "map_11point": _mean(points), **single}

    def notes(self) -> list[str]:
        """How precision was averaged."""
        return ["AP at IoU > 0.5: map by the area under the curve, map_11point by VOC 2007"]


def _mean(values: dict[str, float]) -> float:
    known = [value for value in values.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
