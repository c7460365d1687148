"""The loss of a detector on each image (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from lloss.modeling.networks.ssd import SsdOutput
from lloss.tasks.detection.box_targets import ObjectBatch


def multibox_loss(
    output: SsdOutput, targets: ObjectBatch, ssd: SSD, divided: bool = True
) -> Tensor:
    """Smooth L1 over positive anchors, and cross entropy over these and three times as many others.

    The others are the image's negatives with the largest cross entropy. What is positive, and what
    its offsets should be, torchvision's ``ssd`` decides. An image without objects has no positives,
    so no negatives either: its loss is 0.
    Returns float32 [N]. ``divided`` by the image's number of positives (or 1), each is
    torchvision's ``SSD.compute_loss`` on that image alone; undivided, crowded images rank higher.
    """
    matched = match(output.anchors, targets, ssd)
    positive = matched >= 0
    count = positive.sum(1)
    boxes = _box_loss(output, targets, matched, ssd)
    classes = _class_loss(output.logits.float(), targets, matched, ssd.neg_to_pos_ratio * count)
    total = boxes + classes
    return total / count.clamp(min=1) if divided else total


def match(anchors: Tensor, targets: ObjectBatch, ssd: SSD) -> Tensor:
    """Match each anchor with an object, int64 [N, A]; below 0 without one."""
    unmatched = torch.full_like(anchors[:, 0], -1, dtype=torch.int64)
    return torch.stack(
        [
            ssd.proposal_matcher(box_iou(boxes[:count], anchors)) if count else unmatched
            for boxes, count in zip(targets.boxes, targets.counts)
        ]
    )


def _box_loss(output: SsdOutput, targets: ObjectBatch, matched: Tensor, ssd: SSD) -> Tensor:
    """Sum over the positives of each image, [N]."""
    image, anchor = (matched >= 0).nonzero(as_tuple=True)
    wanted = ssd.box_coder.encode_single(
        targets.boxes[image, matched[image, anchor]], output.anchors[anchor]
    )
    losses = F.smooth_l1_loss(output.offsets.float()[image, anchor], wanted, reduction="none")
    return losses.new_zeros(len(matched)).index_add(0, image, losses.sum(1))


def _class_loss(logits: Tensor, targets: ObjectBatch, matched: Tensor, negatives: Tensor) -> Tensor:
    """Sum over the positives and the hardest ``negatives`` of each image, [N]."""
    if targets.labels.shape[1]:
        wanted = targets.labels.gather(1, matched.clamp(min=0)).where(matched >= 0, 0)
    else:
        wanted = torch.zeros_like(matched)
    losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
    losses = losses.view_as(wanted)
    found = losses.where(wanted > 0, 0).sum(1)
    hardest = losses.masked_fill(wanted > 0, -torch.inf).sort(1, descending=True).values
    rank = torch.arange(hardest.shape[1], device=hardest.device)
    # Where few anchors are left, torchvision counts positives twice; here they are negatives never.
    taken = (rank < negatives[:, None]) & hardest.isfinite()
    return found + hardest.where(taken, 0).sum(1)
