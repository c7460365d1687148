"""Mean average precision of a detector, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lloss.annotations import ObjectLabel
from lloss.modeling.networks.ssd import SsdOutput, reference
from lloss.statistics.confidence_intervals import Floats, Interval, bootstrap
from lloss.tasks.detection.average_precision import AveragePrecision, Detections
from lloss.tasks.detection.box_targets import Objects
from lloss.tasks.task import Meter, of_unknown_classes


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
        labels: of the images; a class that occurs among them and that the network does not have
            has an average precision of 0.
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
        for found, objects in zip(detect(output, self.model, self.size), targets):
            arrays = {name: value.cpu().numpy() for name, value in found.items()}
            truth = objects.truth or objects.as_truth()
            self.precision.add(Detections(**arrays), truth)

    def figures(self) -> dict[str, float]:
        """``map`` by area, ``map_11point``, and ``AP <class>`` by area.

        Means are over the classes of which an object counts; NaN if there is none.
        """
        found = self._resampled(np.ones((1, self.precision.images)))
        return {name: float(value[0]) for name, value in found.items()}

    def _resampled(self, weights: Floats) -> dict[str, Floats]:
        pairs = [self.precision.resampled(n, weights) for n in range(1, len(self.classes) + 1)]
        none = np.zeros(len(weights))
        area = {name: area for name, (area, _) in zip(self.classes, pairs)}
        points = {name: points for name, (_, points) in zip(self.classes, pairs)}
        area.update(dict.fromkeys(self.unknown, none))
        points.update(dict.fromkeys(self.unknown, none))
        single = {f"AP {n}": value for n, value in area.items() if not np.isnan(value).all()}
        means = {"map": _mean(area), "map_11point": _mean(points)}
        return {name: mean + none for name, mean in means.items()} | single

    def intervals(self) -> dict[str, Interval]:
        """Of each figure, by the bootstrap over images."""
        images = self.precision.images
        support = {"map": images, "map_11point": images}
        for number, name in enumerate(self.classes, 1):
            support[f"AP {name}"] = self.precision.showing(number)
        return bootstrap(images, self._resampled, support, self.precision.detections)

    def missed(self) -> list[str]:
        """Classes that the network does not have."""
        return of_unknown_classes(self.unknown, self.classes, "AP 0")

    def notes(self) -> list[str]:
        """How precision was averaged."""
        return ["AP at IoU > 0.5: map by the area under the curve, map_11point by VOC 2007"]


def _mean(values: Mapping[str, Floats]) -> Floats:
    """Over the classes of which an object counts, float [R]."""
    if not values:
        return np.array([np.nan])
    each = np.stack(list(values.values()))
    known = ~np.isnan(each)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, each, 0).sum(0) / known.sum(0)
    return mean
