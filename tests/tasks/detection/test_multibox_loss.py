from __future__ import annotations

from typing import TypeAlias

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from lloss.modeling.networks.ssd import MODELS, SsdOutput, anchors_of, reference
from lloss.tasks.detection.box_targets import ObjectBatch, Objects
from lloss.tasks.detection.multibox_loss import match, multibox_loss

MODEL = MODELS[0]
SIDE, CLASSES = 160, 3
Batch: TypeAlias = tuple[SsdOutput, list[Objects]]


def _objects(count: int, generator: torch.Generator, crowd: int = 0) -> Objects:
    corner = torch.rand(count + crowd, 2, generator=generator) * 100
    side = 10 + torch.rand(count + crowd, 2, generator=generator) * 50
    return Objects(
        torch.cat([corner, corner + side], 1),
        torch.randint(1, CLASSES + 1, (count + crowd,), generator=generator),
        torch.zeros(count + crowd, dtype=torch.bool),
        torch.arange(count + crowd) >= count,
        (0, 0, SIDE, SIDE),
    )


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    anchors = anchors_of(MODEL, SIDE)
    targets = [_objects(count, generator) for count in (3, 0, 7, 1, 12)]
    logits = torch.randn(5, len(anchors), CLASSES + 1, generator=generator) * 2
    offsets = torch.randn(5, len(anchors), 4, generator=generator) * 2
    return SsdOutput(logits, offsets, anchors), targets


def _torchvision(output: SsdOutput, targets: list[Objects]) -> tuple[float, int]:
    """Its loss of a batch as ``SSD.forward`` makes it, and the number of positives."""
    ssd, anchors = reference(MODEL), output.anchors
    matched = [
        ssd.proposal_matcher(box_iou(objects.boxes, anchors))
        if len(objects)
        else torch.full((len(anchors),), -1)
        for objects in targets
    ]
    losses = ssd.compute_loss(
        [{"boxes": objects.boxes, "labels": objects.labels} for objects in targets],
        {"cls_logits": output.logits, "bbox_regression": output.offsets},
        [anchors] * len(targets),
        matched,
    )
    return float(sum(losses.values())), sum(int((row >= 0).sum()) for row in matched)


def _ours(output: SsdOutput, targets: list[Objects], divided: bool = True) -> Tensor:
    return multibox_loss(output, ObjectBatch.of(targets), reference(MODEL), divided)


def _image(output: SsdOutput, row: int) -> SsdOutput:
    return SsdOutput(output.logits[row : row + 1], output.offsets[row : row + 1], output.anchors)


def test_the_undivided_losses_sum_to_torchvisions(batch: Batch) -> None:
    expected, positives = _torchvision(*batch)
    losses = _ours(*batch, divided=False)
    assert positives > 30
    assert float(losses.sum() / positives) == pytest.approx(expected, rel=1e-5)


def test_a_divided_loss_is_torchvisions_on_that_image_alone(batch: Batch) -> None:
    output, targets = batch
    losses = _ours(output, targets)
    expected = [_torchvision(_image(output, n), [targets[n]])[0] for n in range(5)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert losses[1] == 0  # without objects
    half = SsdOutput(output.logits.bfloat16(), output.offsets.bfloat16(), output.anchors)
    rough = _ours(half, targets)
    assert rough.dtype == torch.float32
    assert rough.tolist() == pytest.approx(expected, rel=0.02)


def test_crowds_are_not_trained_on_and_difficult_objects_are() -> None:
    generator = torch.Generator().manual_seed(1)
    with_crowd = _objects(4, generator, crowd=2)
    single = with_crowd.take(torch.arange(4))
    anchors = anchors_of(MODEL, SIDE)
    output = SsdOutput(
        torch.randn(1, len(anchors), 4, generator=generator),
        torch.zeros(1, len(anchors), 4),
        anchors,
    )
    assert _ours(output, [with_crowd]).tolist() == _ours(output, [single]).tolist()
    difficult = Objects(
        single.boxes, single.labels, torch.ones(4, dtype=torch.bool), single.crowd, single.frame
    )
    assert _ours(output, [difficult]).tolist() == _ours(output, [single]).tolist()


def test_an_anchor_of_an_object_is_never_a_negative_too() -> None:
    """With more than a quarter of the anchors positive, three times as many are not left."""
    anchors = anchors_of(MODEL, SIDE)[-6:]
    objects = Objects(
        anchors[:4].clamp(0, SIDE),
        torch.ones(4, dtype=torch.int64),
        torch.zeros(4, dtype=torch.bool),
        torch.zeros(4, dtype=torch.bool),
        (0, 0, SIDE, SIDE),
    )
    output = SsdOutput(torch.zeros(1, 6, 2), torch.zeros(1, 6, 4), anchors)
    losses = multibox_loss(output, ObjectBatch.of([objects]), reference(MODEL), False)
    matched = match(anchors, ObjectBatch.of([objects]), reference(MODEL))
    count = int((matched >= 0).sum())
    ssd = reference(MODEL)
    wanted = ssd.box_coder.encode_single(objects.boxes[matched[0].clamp(min=0)], anchors)
    boxes = torch.nn.functional.smooth_l1_loss(torch.zeros(6, 4), wanted, reduction="none").sum(1)
    expected = float(boxes[matched[0] >= 0].sum()) + 6 * float(torch.tensor(2.0).log())
    assert count >= 4
    assert float(losses) == pytest.approx(expected, rel=1e-5)
