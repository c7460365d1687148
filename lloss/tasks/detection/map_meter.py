"""Mean average precision of a detector, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lloss.annotations import ObjectLabel
from lloss.modeling.networks.ssd import SsdOutput, reference
from lloss.modeling.objective import Meter, unknown_classes_note
from lloss.statistics.confidence_intervals import Floats
from lloss.tasks.detection.average_precision import AveragePrecision, Detections
from lloss.tasks.detection.box_targets import Objects


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


class DetectionMeter(Meter):
    """Average precisions at IoU .5 of whole images: objects that the input cuts off are missed.

    Args:
        labels: of the images; a class of them that the network lacks has an average precision of 0.
        classes: of the network.
        model: its name.
        size: side of its input.
    """

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
        self.images += len(targets)
        for found, objects in zip(detect(output, self.model, self.size), targets):
            arrays = {name: value.cpu().numpy() for name, value in found.items()}
            self.precision.add(Detections(**arrays), objects.truth or objects.as_truth())

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """``map`` by area, ``map_11point``, and ``AP <class>`` by area.

        Means are over the classes of which an object counts; NaN without any.
        """
        pairs = [self.precision.of_class(n, weights) for n in range(1, len(self.classes) + 1)]
        zeros = np.zeros(len(weights))
        area, points = (
            dict(zip(self.classes, column)) | dict.fromkeys(self.unknown, zeros)
            for column in (zip(*pairs) if pairs else ((), ()))
        )
        single = {f"AP {n}": value for n, value in area.items() if not np.isnan(value).all()}
        means = {"map": _mean(area), "map_11point": _mean(points)}
        return {name: mean + zeros for name, mean in means.items()} | single

    def support(self) -> dict[str, int]:
        """Images that show an object of the class."""
        each = {
            f"AP {name}": self.precision.showing(number)
            for number, name in enumerate(self.classes, 1)
        }
        return {"map": self.images, "map_11point": self.images, **each}

    def work(self) -> int:
        """All detections."""
        return self.precision.detections

    def missed(self) -> list[str]:
        """Classes that the network does not have."""
        return unknown_classes_note(self.unknown, self.classes, "AP 0")

    def notes(self) -> list[str]:
        """How precision was averaged."""
        return ["AP at IoU > 0.5: map by the area under the curve, map_11point by VOC 2007"]


def _mean(values: Mapping[str, Floats]) -> Floats:
    """Average over the classes of which an object counts, float [R]."""
    if not values:
        return np.array([np.nan])
    each = np.stack(list(values.values()))
    counted = ~np.isnan(each)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(counted, each, 0).sum(0) / counted.sum(0)
    return mean
