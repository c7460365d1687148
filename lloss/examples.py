"""Labeled images as training and measuring take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.cutoff import CutOff
from lloss.decoding import decode_with
from lloss.errors import ImageError, LabelError
from lloss.images import ImageSpec, Pixels
from lloss.labels import LabeledSet
from lloss.settings import TrainSettings
from lloss.tasks import get_task
from lloss.training import TrainingData


def load_examples(
    labeled: LabeledSet,
    classes: Sequence[str],
    settings: TrainSettings,
    problems: Problems,
    *,
    room: bool = False,
    scratch: Path | None = None,
    what: str = "labeled",
) -> tuple[TrainingData, list[int]]:
    """Decode labeled images and make their targets.

    Args:
        labeled: the images, each with its label.
        classes: of the network.
        settings: with a ``size`` that is not 0.
        problems: images that cannot be decoded, and labels that do not fit theirs, go there.
        room: as the task keeps them to augment; otherwise at the input's size, as a scorer does.
        scratch: a folder for what does not fit into memory.
        what: the images are, for the progress bar.

    Returns:
        The data, and the rows of ``labeled`` that they are of.

    Raises:
        LabelError: one cannot be used and is not to be left out, or none can.
    """
    task = get_task(settings.task)
    spec = ImageSpec(settings.size, settings.size, settings.fit)
    spec = task.stored(settings) if room else spec
    classes = tuple(classes)
    cut = CutOff(ImageSpec(settings.size, settings.size, settings.fit), task.unit)

    def example(row: int, out: Pixels) -> Any:
        item, label = labeled.items[row], labeled.labels[row]
        return task.example(item, label, classes, spec, room, out, cut)

    bad = set[int]()

    def failed(row: int, reason: ImageError | LabelError) -> None:
        problems.report(f"{labeled.origin}: {labeled.items[row].id!r}", str(reason))
        bad.add(row)

    images, targets = decode_with(example, failed, labeled.items, spec, scratch, what)
    rows = [row for row in range(len(labeled)) if row not in bad]
    if not rows:
        raise LabelError(f"{labeled.origin}: {problems.summary()}; no {what} image is left")
    for place, row in enumerate(rows):  # close the gaps where the array lies
        if place != row:
            images[place] = images[row]
    kept = [targets[row] for row in rows]
    return TrainingData(images[: len(rows)], kept, classes, labeled.sha256, cut), rows
