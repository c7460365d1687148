"""Labeled images as training and measuring take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lloss.decoding import decode_with
from lloss.images import ImageSpec, Pixels
from lloss.labels import LabeledSet
from lloss.settings import TrainSettings
from lloss.tasks import get_task
from lloss.training import TrainingData


def load_examples(
    labeled: LabeledSet,
    classes: Sequence[str],
    settings: TrainSettings,
    *,
    room: bool = False,
    scratch: Path | None = None,
    what: str = "labeled",
) -> TrainingData:
    """Decode labeled images and make their targets.

    Args:
        labeled: the images, each with its label.
        classes: of the network.
        settings: with a ``size`` that is not 0.
        room: as the task keeps them to augment; otherwise at the input's size, as a scorer does.
        scratch: a folder for what does not fit into memory.
        what: the images are, for messages.

    Raises:
        LabelError: an image cannot be decoded, or its label does not fit it.
    """
    task = get_task(settings.task)
    spec = ImageSpec(settings.size, settings.size, settings.fit)
    spec = task.stored(settings) if room else spec
    classes = tuple(classes)

    def example(row: int, out: Pixels) -> Any:
        return task.example(labeled.items[row], labeled.labels[row], classes, spec, room, out)

    images, targets = decode_with(example, labeled.items, spec, scratch, what)
    return TrainingData(images, targets, classes, labeled.sha256)
