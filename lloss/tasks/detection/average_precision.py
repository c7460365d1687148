"""Average precision of detections, as PASCAL VOC defines it.

Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge", section 4.2, and the
development kit of the challenge. An image is judged at once, without a loop over detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lloss.annotations import ObjectLabel
from lloss.modeling.networks.ssd import SsdOutput, reference
from lloss.modeling.objective import Meter
from lloss.statistics.confidence_intervals import Floats
from lloss.tasks.detection.box_targets import Objects

LEVELS = np.arange(11) / 10  # Recalls at which VOC 2007 reads precision

IOU = 0.5  # a detection finds an object that it overlaps by more than this

TRUE, IGNORED, FALSE = 1, 0, -1
"""Verdicts: a detection that counts for, that does not count, that counts against."""


def judge(boxes: Floats, scores: Floats, labels: Floats, truth: Objects) -> NDArray[np.int8]:
    """Judge each detection of an image, by boxes [D, 4] (x0, y0, x1, y1), scores and labels [D].

    A detection is of the object of its class that it overlaps most. If that is by more than
    :data:`IOU`: of a difficult object it is ignored; of another it is true, if no detection of a
    higher score is of the same object. All others are false, except those inside a crowd of their
    class, by more than that share of their own area, are ignored.
    """
    verdicts = np.full(len(labels), FALSE, np.int8)
    if not len(truth.labels) or not len(verdicts):
        return verdicts
    theirs, crowd = truth.boxes.numpy(), truth.crowd.numpy()
    same = labels[:, None] == truth.labels.numpy()
    low = np.maximum(boxes[:, None, :2], theirs[:, :2]).astype(np.float64)
    high = np.minimum(boxes[:, None, 2:], theirs[:, 2:]).astype(np.float64)
    shared = (high - low).clip(min=0).prod(2)
    own, their = _area(boxes)[:, None], _area(theirs)
    with np.errstate(invalid="ignore", divide="ignore"):  # a box without area finds nothing
        overlap = np.where(same & ~crowd, shared / (own + their - shared), -1.0)
        inside = np.where(same & crowd, shared / own, -1.0)
    best = overlap.argmax(1)
    finds = overlap.max(1) > IOU
    ignored = finds & truth.difficult.numpy()[best]
    verdicts[ignored | (inside.max(1) > IOU)] = IGNORED
    by_score = np.argsort(-scores, kind="stable")
    candidates = by_score[(finds & ~ignored)[by_score]]
    _, first = np.unique(best[candidates], return_index=True)
    verdicts[candidates[first]] = TRUE
    return verdicts


def _area(boxes: Floats) -> NDArray[np.float64]:
    area: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(1)
    return area


def detect(output: SsdOutput, model: str, size: int) -> list[dict[str, Tensor]]:
    """Decode, and drop what overlaps a better detection: torchvision's own postprocessing.

    Returns for each image, sorted by falling score: ``boxes`` float [D, 4] within the input's
    ``size``, ``scores`` float [D], ``labels`` int64 [D], from 1.
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

    A class of the images' ``labels`` that the network lacks has an average precision of 0.
    """

    def __init__(
        self, labels: Sequence[ObjectLabel], classes: Sequence[str], model: str, size: int
    ) -> None:
        self.classes, self.model, self.size = tuple(classes), model, size
        counted = {
            name
            for label in labels
            for name, left_out in zip(label.names, label.difficult | label.crowd)
            if not left_out
        }
        self.unknown = sorted(counted - set(classes))
        self._judged: list[NDArray[np.float64]] = []  # of each image: labels, scores, verdicts
        self._positives: list[NDArray[np.integer]] = []  # labels of the objects that count

    def update(self, output: SsdOutput, targets: Sequence[Objects]) -> None:
        for found, objects in zip(detect(output, self.model, self.size), targets):
            boxes, scores, labels = (
                found[name].cpu().numpy() for name in ("boxes", "scores", "labels")
            )
            truth = objects if objects.truth is None else objects.truth
            self.add(boxes, scores, labels, truth)

    def add(self, boxes: Floats, scores: Floats, labels: Floats, truth: Objects) -> None:
        """Judge the detections of one more image, see :func:`judge`."""
        self.images += 1
        verdicts = judge(boxes, scores, labels, truth)
        self._judged.append(np.stack([labels, scores, verdicts]).astype(np.float64))
        self._positives.append(truth.labels[~(truth.difficult | truth.crowd)].numpy())

    def of_class(self, label: int, weights: Floats) -> tuple[Floats, Floats]:
        """Compute a class's average precisions, of R draws of the N images: ``weights`` [R, N].

        Returns the area under the falling envelope of the curve (VOC 2010 and later), and the mean
        over :data:`LEVELS` of the best precision at that recall or a higher one: float64 [R] each,
        NaN where no object counts.
        """
        positives = weights @ np.array([(labels == label).sum() for labels in self._positives])
        judged = np.concatenate(self._judged, 1) if self._judged else np.empty((3, 0))
        image = np.repeat(np.arange(len(self._judged)), [part.shape[1] for part in self._judged])
        counts = (judged[0] == label) & (judged[2] != IGNORED)
        _, scores, verdicts = judged[:, counts]
        order = np.argsort(-scores, kind="stable")
        drawn = weights[:, image[counts][order]]
        true = drawn * (verdicts[order] == TRUE)
        hits = true.cumsum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.nan_to_num(hits / drawn.cumsum(1))  # before the first detection: 0
            recall = hits / positives[:, None]
            best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            area = (true * best).sum(1) / positives
            reached = np.stack([(recall < level).sum(1) for level in LEVELS], 1)
        best = np.concatenate([best, np.zeros((len(weights), 1))], 1)
        at_levels = np.take_along_axis(best, reached, 1).mean(1)
        return area, np.where(positives > 0, at_levels, np.nan)

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """``map`` by area, ``map_11point``, and ``AP <class>`` by area.

        Means are over the classes of which an object counts; NaN without any.
        """
        pairs = [self.of_class(n, weights) for n in range(1, len(self.classes) + 1)]
        zeros = np.zeros(len(weights))
        area, points = (
            dict(zip(self.classes, column)) | dict.fromkeys(self.unknown, zeros)
            for column in (zip(*pairs) if pairs else ((), ()))
        )
        single = {f"AP {n}": value for n, value in area.items() if not np.isnan(value).all()}
        return {"map": _mean(area) + zeros, "map_11point": _mean(points) + zeros, **single}

    def notes(self) -> list[str]:
        return ["AP at IoU > 0.5: map by the area under the curve, map_11point by VOC 2007"]


def _mean(values: Mapping[str, Floats]) -> Floats:
    """Average over the classes of which an object counts, float [R]."""
    each = np.stack([*values.values()]) if values else np.full((1, 1), np.nan)
    counted = ~np.isnan(each)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(counted, each, 0).sum(0) / counted.sum(0)
    return mean
