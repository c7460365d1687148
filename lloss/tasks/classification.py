"""Image classification: cross entropy, accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lloss.models import build_classifier
from lloss.settings import TrainSettings

SUMMARY_CLASSES = 10
"""The head sees at most so many of the sorted log-probabilities: the rest decides little."""

LOG_FLOOR = -16.0
"""Log-probabilities below are clamped: sixteen nats is certainty, and -inf would spoil the head."""


class Classification:
    """See :class:`lloss.tasks.Task`; the network's output is logits, float [N, classes]."""

    name = "classification"
    metric = "accuracy"

    def build(self, settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
        """A network of :mod:`lloss.models`."""
        return build_classifier(settings.model, len(classes), settings.weights)

    def augment(
        self, images: Tensor, targets: Tensor, settings: TrainSettings, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Flip and crop, each image by its own draw."""
        if "crop" in settings.augment and settings.padding:
            images = _random_crop(images, settings.padding, generator)
        if "flip" in settings.augment:
            flipped = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(2), images)
        return images, targets

    def loss_per_image(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy in nats, float [N]."""
        return F.cross_entropy(output.float(), targets, reduction="none")

    def summary_size(self, classes: Sequence[str]) -> int:
        """As many as there are classes, at most ten."""
        return min(len(classes), SUMMARY_CLASSES)

    def summary(self, output: Tensor) -> Tensor:
        """The largest log-probabilities in falling order, detached."""
        log_probabilities = F.log_softmax(output.detach().float(), 1).clamp(min=LOG_FLOOR)
        return log_probabilities.topk(min(output.shape[1], SUMMARY_CLASSES), 1).values

    def outputs(self, output: Tensor) -> dict[str, Tensor]:
        """``entropy`` in nats, ``margin`` and ``confidence`` in 0..1, ``prediction`` an index."""
        log_probabilities = F.log_softmax(output.float(), 1)
        probabilities = log_probabilities.exp()
        top = probabilities.topk(min(output.shape[1], 2), 1).values
        return {
            "entropy": -(probabilities * log_probabilities).sum(1),
            "margin": top[:, 0] - top[:, -1],
            "confidence": top[:, 0],
            "prediction": output.argmax(1).float(),
        }

    def hits(self, output: Tensor, targets: Tensor) -> Tensor:
        """1 where the largest logit is the target's."""
        return (output.argmax(1) == targets).float()


def _random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Windows of the old size out of zero-padded images, uint8 [N, H, W, 3]."""
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    corner = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows, columns = corner[0] + torch.arange(height), corner[1] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


TASK = Classification()
