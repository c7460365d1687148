"""Average precision of detections, as PASCAL VOC defines it.

Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge", section 4.2, and the
development kit of the challenge. An image is judged at once, without a loop over detections.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VOC_LEVELS = np.arange(11) / 10
"""Recalls at which VOC 2007 reads precision."""

COCO_LEVELS = np.linspace(0, 1, 101)
"""Recalls at which COCO reads it, rounded as COCO's own evaluation rounds them."""

TRUE, IGNORED, FALSE = 1, 0, -1
"""Verdicts: a detection that counts for, that does not count, that counts against."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found on an image.

    Attributes:
        boxes: float [D, 4]: x0, y0, x1, y1.
        scores: float [D].
        labels: int [D].
    """

    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is on it.

    Attributes:
        boxes: float [M, 4].
        labels: int [M].
        difficult: bool [M]: to find it neither helps nor hurts.
        crowd: bool [M]: a region of many; what lies in it and finds nothing else is ignored.
    """

    boxes: NDArray[np.floating]
    labels: NDArray[np.integer]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]


@dataclass
class AveragePrecision:
    """Judges detections image by image; average precisions a class come of all of them.

    Attributes:
        iou: a detection finds an object that it overlaps by more than this.
    """

    iou: float = 0.5
    _judged: list[NDArray[np.float64]] = field(default_factory=list, init=False, repr=False)
    _positives: list[NDArray[np.integer]] = field(default_factory=list, init=False, repr=False)

    def add(self, found: Detections, truth: Truth) -> None:
        """Judge the detections of one more image."""
        verdicts = judge(found, truth, self.iou)
        self._judged.append(np.stack([found.labels, found.scores, verdicts]).astype(np.float64))
        self._positives.append(truth.labels[~(truth.difficult | truth.crowd)])

    @property
    def detections(self) -> int:
        """Count the detections of all images."""
        return sum(judged.shape[1] for judged in self._judged)

    def showing(self, label: int) -> int:
        """Count the images that show an object of a class that counts."""
        return sum(bool((labels == label).any()) for labels in self._positives)

    def of_class(
        self,
        label: int,
        weights: NDArray[np.float64],
        levels: NDArray[np.float64] = VOC_LEVELS,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute a class's average precisions, of R draws of the N images.

        Of equal scores, the image that was added first comes first.

        Args:
            label: the class.
            weights: how often each image was drawn, float64 [R, N].
            levels: recalls: :data:`VOC_LEVELS`, or :data:`COCO_LEVELS` for COCO's.

        Returns:
            The area under the falling envelope of the curve (VOC 2010 and later), and the mean
            over levels of the best precision at that recall or a higher one: float64 [R] each,
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
            reached = np.stack([(recall < level).sum(1) for level in levels], 1)
        best = np.concatenate([best, np.zeros((len(weights), 1))], 1)
        at_levels = np.take_along_axis(best, reached, 1).mean(1)
        return area, np.where(positives > 0, at_levels, np.nan)


def judge(found: Detections, truth: Truth, iou: float = 0.5) -> NDArray[np.int8]:
    """The verdict on each detection of an image.

    A detection is of the object of its class that it overlaps most. If that is by more than
    ``iou``: of a difficult object it is ignored; of another it is true, if no detection of a higher
    score is of the same object. All else is false, but for what lies in a crowd of its class, by
    more than the share ``iou`` of its own area.

    Returns:
        int8 [D]: :data:`TRUE`, :data:`IGNORED` or :data:`FALSE`.
    """
    verdicts = np.full(len(found.labels), FALSE, np.int8)
    if not len(truth.labels) or not len(verdicts):
        return verdicts
    same = found.labels[:, None] == truth.labels
    shared = _intersection(found.boxes, truth.boxes)
    own, their = _area(found.boxes)[:, None], _area(truth.boxes)
    with np.errstate(invalid="ignore", divide="ignore"):  # a box without area is nothing's
        overlap = np.where(same & ~truth.crowd, shared / (own + their - shared), -1.0)
        inside = np.where(same & truth.crowd, shared / own, -1.0)
    best = overlap.argmax(1)
    finds = overlap.max(1) > iou
    ignored = finds & truth.difficult[best]
    verdicts[ignored | (inside.max(1) > iou)] = IGNORED
    by_score = np.argsort(-found.scores, kind="stable")
    candidates = by_score[(finds & ~ignored)[by_score]]
    _, first = np.unique(best[candidates], return_index=True)
    verdicts[candidates[first]] = TRUE
    return verdicts


def _area(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    area: NDArray[np.float64] = sides.prod(1)
    return area


def _intersection(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Areas that boxes share, float64 [D, M]."""
    low = np.maximum(a[:, None, :2], b[:, :2]).astype(np.float64)
    high = np.minimum(a[:, None, 2:], b[:, 2:]).astype(np.float64)
    area: NDArray[np.float64] = (high - low).clip(min=0).prod(2)
    return area
