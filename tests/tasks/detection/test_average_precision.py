from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lloss.tasks.detection import average_precision
from lloss.tasks.detection.average_precision import DetectionMeter, judge
from lloss.tasks.detection.box_targets import Objects

Found: TypeAlias = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Boxes, scores and labels."""


def _truth(boxes: Any, labels: Any, difficult: Any = None, crowd: Any = None) -> Objects:
    no = [False] * len(labels)
    return Objects(
        torch.tensor(np.array(boxes, np.float32)).reshape(-1, 4),
        torch.tensor(np.array(labels, np.int64)),
        torch.tensor(difficult or no, dtype=torch.bool),
        torch.tensor(crowd or no, dtype=torch.bool),
        (0, 0, 0, 0),
    )


def _found(boxes: Any, scores: Any, labels: Any) -> Found:
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
    )


def _meter(images: Iterable[tuple[Found, Objects]]) -> DetectionMeter:
    meter = DetectionMeter([], ("a", "b", "c"), "", 0)
    for found, truth in images:
        meter.add(*found, truth)
    return meter


def _precisions(images: Iterable[tuple[Found, Objects]], label: int = 1) -> tuple[float, float]:
    """The area under the curve, and the mean over levels."""
    meter = _meter(images)
    area, at_levels = meter.of_class(label, np.ones((1, meter.images)))
    return float(area[0]), float(at_levels[0])


def test_a_hand_worked_case_with_difficult_objects_and_duplicates() -> None:
    """Two images, one class, four objects of which one is difficult.

    ======  =====  ==========================================  ========
    score   image  what it is                                  verdict
    ======  =====  ==========================================  ========
    .95     1      object A, exactly                           true
    .90     1      A again, a little off                       false
    .85     2      the difficult object                        ignored
    .80     2      the difficult object again                  ignored
    .70     2      object C, IoU 80/120 = .667                 true
    .60     1      nothing                                     false
    .50     1      object B, IoU 50/100 = .5, not more         false
    .40     1      object B, IoU 60/100 = .6                   true
    ======  =====  ==========================================  ========

    Three objects count. Recall and precision after each detection that counts:
    1/3 1/1, 1/3 1/2, 2/3 2/3, 2/3 2/4, 2/3 2/5, 3/3 3/6.
    """
    one = (
        _found(
            [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [20, 0, 25, 10], [20, 0, 26, 10]],
            [0.95, 0.90, 0.60, 0.50, 0.40],
            [1] * 5,
        ),
        _truth([[0, 0, 10, 10], [20, 0, 30, 10]], [1, 1]),
    )
    other = (
        _found([[0, 0, 10, 10], [0, 0, 10, 11], [42, 0, 52, 10]], [0.85, 0.80, 0.70], [1] * 3),
        _truth([[0, 0, 10, 10], [40, 0, 50, 10]], [1, 1], difficult=[True, False]),
    )
    area, eleven = _precisions([one, other])
    # A third each at the best precision from there on: 1, 2/3, 1/2.
    assert area == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    # Recalls 0 .1 .2 .3 | .4 .5 .6 | .7 .8 .9 1.
    assert eleven == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11)


def test_an_overlap_of_exactly_a_half_is_too_little() -> None:
    found = _found([[0, 0, 5, 10]], [0.9], [1])
    assert judge(*found, _truth([[0, 0, 10, 10]], [1])).tolist() == [-1]
    assert judge(*found, _truth([[0, 0, 9.9, 10]], [1])).tolist() == [1]


def test_what_is_in_a_crowd_is_ignored_unless_it_finds_an_object() -> None:
    truth = _truth([[0, 0, 100, 100], [0, 0, 10, 10]], [1, 1], crowd=[True, False])
    found = _found(
        [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [98, 98, 108, 108]],
        [0.9, 0.8, 0.7, 0.6],
        [1] * 4,
    )
    assert judge(*found, truth).tolist() == [1, 0, 0, -1]


def test_precision_is_undefined_without_an_object_that_counts_and_0_without_a_find() -> None:
    hidden = _found([[0, 0, 9, 9]], [0.5], [1]), _truth([[0, 0, 9, 9]], [1], difficult=[True])
    for images in ([], [hidden]):
        assert np.isnan(_precisions(images)).all()
    missed = _found([], [], []), _truth([[0, 0, 9, 9]], [1])
    false = _found([[0, 0, 9, 9]], [0.5], [1]), _truth([], [])
    assert _precisions([missed]) == _precisions([missed, false]) == (0, 0)


def test_recall_of_exactly_a_level_reaches_it() -> None:
    """3 of 10 objects are found: recall .3, which is not quite the sum of three tenths."""
    boxes = [[20 * n, 0, 20 * n + 10, 10] for n in range(10)]
    image = _found(boxes[:3], [0.9, 0.8, 0.7], [1] * 3), _truth(boxes, [1] * 10)
    assert _precisions([image])[1] == pytest.approx(4 / 11)


def _scene(random: np.random.Generator) -> tuple[Objects, Found]:
    """Objects on a grid of cells, and detections near and far."""
    count = int(random.integers(0, 9))
    cells = random.permutation(9)[:count]
    corner = np.stack([cells % 3, cells // 3], 1) * 100.0
    corner += random.uniform(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(20, 60, (count, 2))], 1)
    labels = random.integers(1, 4, count)
    near = random.integers(0, max(count, 1), 2 * count)
    moved = boxes[near] + random.normal(0, 6, (2 * count, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 5)
    wrong = random.random(2 * count) < 0.1
    far = random.uniform(0, 250, (6, 2))
    far = np.concatenate([far, far + random.uniform(20, 60, (6, 2))], 1)
    found = _found(
        np.concatenate([moved, far]),
        random.permutation(10_000)[: 2 * count + 6] / 10_000,
        np.concatenate([np.where(wrong, 1, labels[near]), random.integers(1, 4, 6)]),
    )
    return _truth(boxes, labels), found


def _pycocotools(scenes: list[tuple[Objects, Found]]) -> NDArray[np.float64]:
    """Its AP at IoU .5 of each class, areas of all sizes, 101 points."""
    truths, results = [], []
    for image, (truth, found) in enumerate(scenes, 1):
        for box, label in zip(truth.boxes, truth.labels, strict=True):
            x0, y0, x1, y1 = map(float, box)
            truths.append({
                "id": len(truths) + 1, "image_id": image, "category_id": int(label),
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0,
            })  # fmt: skip
        for box, score, label in zip(*found, strict=True):
            x0, y0, x1, y1 = map(float, box)
            results.append({
                "image_id": image, "category_id": int(label), "score": float(score),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            })  # fmt: skip
    coco = COCO()
    coco.dataset = {
        "images": [{"id": n} for n in range(1, len(scenes) + 1)],
        "annotations": truths,
        "categories": [{"id": n} for n in (1, 2, 3)],
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.maxDets = [1000]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][0, :, :, 0, 0].mean(0)
    return precision


def test_random_boxes_are_judged_as_pycocotools_judges_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Objects of a class do not overlap, so that COCO's matching and VOC's are one."""
    monkeypatch.setattr(average_precision, "LEVELS", np.linspace(0, 1, 101))
    random = np.random.default_rng(0)
    scenes = [_scene(random) for _ in range(150)]
    images = [(found, truth) for truth, found in scenes]
    ours = [_precisions(images, label)[1] for label in (1, 2, 3)]
    assert ours == pytest.approx(_pycocotools(scenes).tolist(), abs=1e-6)
    assert 0.2 < min(ours) < max(ours) < 0.95


@pytest.mark.parametrize("seed", range(3))
def test_precision_of_drawn_images_is_that_of_their_copies(seed: int) -> None:
    random, images = np.random.default_rng(seed), []
    for _ in range(5):
        truth, (boxes, scores, labels) = _scene(random)
        ranks = scores.argsort().argsort()  # scores that tie between images
        images.append(((boxes, ranks, labels), truth))
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 2], [0, 0, 0, 0, 5]])
    for label in (1, 2, 3):
        drawn = _meter(images).of_class(label, weights.astype(float))
        for times, area, level in zip(weights, *drawn):
            copies = [images[image] for image in np.repeat(np.arange(5), times)]
            assert (area, level) == pytest.approx(_precisions(copies, label), nan_ok=True)
