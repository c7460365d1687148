"""Labeled images as training and measuring take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.bitdepth import MOST_14, WHITE_16
from lloss.decoding import decode_with
from lloss.errors import ImageError, LabelError
from lloss.images import Pixels, largest_of_16_bits
from lloss.labels import LabeledSet
from lloss.settings import TrainSettings
from lloss.tasks import get_task
from lloss.training import TrainingData

LOOKED_AT = 64
"""Images of which the bit depth is checked, spread over the set."""


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
    spec = task.stored(settings) if room else settings.image_spec()
    classes = tuple(classes)

    def example(row: int, out: Pixels) -> Any:
        return task.example(labeled.items[row], labeled.labels[row], classes, spec, room, out)

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
    _note_dim(labeled.take(rows), settings, problems)
    return TrainingData(images[: len(rows)], kept, classes, labeled.sha256), rows


def _note_dim(labeled: LabeledSet, settings: TrainSettings, problems: Problems) -> None:
    """Note that 16-bit images use few of their bits, which makes them nearly black."""
    if settings.white:
        return
    looked_at = labeled.items[:: max(1, len(labeled) // LOOKED_AT)]
    largest = [value for item in looked_at if (value := largest_of_16_bits(item.read()))]
    most = max(largest, default=WHITE_16)
    if most <= MOST_14:
        white = 2 ** most.bit_length() - 1
        problems.note(
            f"{labeled.origin}: {len(largest)} of {len(looked_at)} images that were checked have "
            f"16 bits and no value above {most}: they look nearly black to the network; if "
            f"{white} is white, pass --white {white}"
        )
