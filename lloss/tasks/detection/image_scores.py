"""What is known of an image from a detector's logits alone: neither boxes nor suppression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lloss.modeling.head import LOG_FLOOR

CONFIDENT = 0.3  # Foreground probability from which an anchor counts as a find

RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Ranks of the sorted anchors that the summary reads: first the objects', then the falloff."""

MEAN_OVER = (4, 16, 64, 256)
"""Numbers of most confident anchors that the summary averages the entropy over."""

SUMMARY_SIZE = len(RANKS) + len(MEAN_OVER) + 1


class AnchorScores(NamedTuple):
    """What a detector's classification says of each of A anchors (or points), float32 [N, A]."""

    foreground: Tensor  # log-probability of the likeliest class
    entropy: Tensor  # of the class probabilities, in nats
    present: Tensor  # probability of an object of any class


def of_softmax(logits: Tensor) -> AnchorScores:
    """Read logits of classes that exclude each other, [N, A, C + 1]; column 0 is background."""
    log_probabilities = F.log_softmax(logits.float(), 2)
    probabilities = log_probabilities.exp()
    return AnchorScores(
        foreground=log_probabilities[:, :, 1:].amax(2),
        entropy=-(probabilities * log_probabilities).sum(2),
        present=1 - probabilities[:, :, 0],
    )


def of_sigmoid(logits: Tensor, quality: Tensor | None = None) -> AnchorScores:
    """Read logits of C classes that each are there or not, [N, A, C].

    The entropy is the sum of the classes' own, which are independent. With ``quality`` [N, A], the
    logits of how well a box fits, the foreground probability is the geometric mean of both, as FCOS
    ranks its detections (Tian et al. 2019).
    """
    yes, no = _log_sigmoid(logits.float()), _log_sigmoid(-logits.float())
    foreground = yes.amax(2)
    if quality is not None:
        foreground = (foreground + _log_sigmoid(quality.float())) / 2
    return AnchorScores(
        foreground=foreground,
        entropy=-(yes.exp() * yes + no.exp() * no).sum(2),
        present=1 - no.sum(2).exp(),
    )


def _log_sigmoid(logits: Tensor) -> Tensor:
    # F.logsigmoid becomes the logarithm of a sigmoid in ONNX: -inf from logits of -104 on.
    return -F.softplus(-logits)


def scores(anchors: AnchorScores) -> dict[str, Tensor]:
    """Scores that cost next to nothing compared with the network, each float32 [N].

    ``entropy``: the largest entropy in nats of the class probabilities of an anchor, over those
    whose foreground probability is :data:`CONFIDENT` or more, and the most confident one in any
    case. ``confidence``: the largest foreground probability, 0 to 1.
    """
    foreground = anchors.foreground.exp()
    confidence = foreground.amax(1)
    threshold = confidence.clamp(max=CONFIDENT)
    found = foreground >= threshold[:, None]
    return {"entropy": anchors.entropy.where(found, 0).amax(1), "confidence": confidence}


def summary(anchors: AnchorScores) -> Tensor:
    """The anchors at a glance, for the head: detached float32 [N, SUMMARY_SIZE].

    The log-probabilities of the foreground at :data:`RANKS` in falling order; the mean entropy of
    the most confident anchors (:data:`MEAN_OVER`); the logarithm of 1 + the expected number of
    foreground anchors.
    """
    foreground = anchors.foreground.detach().clamp(min=LOG_FLOOR)
    many = min(RANKS[-1], foreground.shape[1])
    top = foreground.topk(many, 1)
    ranks = torch.tensor([min(rank, many) - 1 for rank in RANKS], device=top.values.device)
    sorted_entropy = anchors.entropy.detach().gather(1, top.indices)
    means = [sorted_entropy[:, :count].mean(1) for count in MEAN_OVER]
    expected = anchors.present.detach().sum(1).log1p()
    return torch.cat([top.values[:, ranks], torch.stack([*means, expected], 1)], 1)
