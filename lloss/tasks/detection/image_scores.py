"""What is known of an image from a detector's logits alone: neither boxes nor suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lloss.modeling.head import LOG_FLOOR
from lloss.modeling.networks.ssd import SsdOutput

CONFIDENT = 0.3  # Foreground probability from which an anchor counts as a find

RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Ranks of the sorted anchors that the summary reads: first the objects', then the falloff."""

MEAN_OVER = (4, 16, 64, 256)
"""Numbers of most confident anchors that the summary averages the entropy over."""

SUMMARY_SIZE = len(RANKS) + len(MEAN_OVER) + 1


def scores(output: SsdOutput) -> dict[str, Tensor]:
    """Scores that cost next to nothing compared with the network, each float32 [N].

    ``entropy``: the largest entropy in nats of the class probabilities of an anchor, over those
    whose foreground probability is :data:`CONFIDENT` or more, and the most confident one in any
    case. ``confidence``: the largest foreground probability, 0 to 1.
    """
    log_probabilities = F.log_softmax(output.logits.float(), 2)
    probabilities = log_probabilities.exp()
    foreground = probabilities[:, :, 1:].amax(2)
    confidence = foreground.amax(1)
    threshold = confidence.clamp(max=CONFIDENT)
    entropy = -(probabilities * log_probabilities).sum(2)
    found = foreground >= threshold[:, None]
    return {"entropy": entropy.where(found, 0).amax(1), "confidence": confidence}


def summary(output: SsdOutput) -> Tensor:
    """The anchors at a glance, for the head: detached float32 [N, SUMMARY_SIZE].

    The log-probabilities of the foreground at :data:`RANKS` in falling order; the mean entropy of
    the most confident anchors (:data:`MEAN_OVER`); the logarithm of 1 + the expected number of
    foreground anchors.
    """
    log_probabilities = F.log_softmax(output.logits.detach().float(), 2)
    probabilities = log_probabilities.exp()
    entropy = -(probabilities * log_probabilities).sum(2)
    foreground = log_probabilities[:, :, 1:].amax(2).clamp(min=LOG_FLOOR)
    many = min(RANKS[-1], foreground.shape[1])
    top = foreground.topk(many, 1)
    ranks = torch.tensor([min(rank, many) - 1 for rank in RANKS], device=top.values.device)
    sorted_entropy = entropy.gather(1, top.indices)
    means = [sorted_entropy[:, :count].mean(1) for count in MEAN_OVER]
    expected = (1 - probabilities[:, :, 0]).sum(1).log1p()
    return torch.cat([top.values[:, ranks], torch.stack([*means, expected], 1)], 1)
