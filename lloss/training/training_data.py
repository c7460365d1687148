"""Labeled images as training and measuring take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError
from lloss.images.cut_off import CutOff
from lloss.images.decode import Pixels, largest_of_16_bits
from lloss.pools.decode_ahead import decode_with
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.trainer import TrainingData

LOOKED_AT = 64
"""Images whose brightness is checked, spread over the set."""

DARK = 63
"""Of 255: what 14 bits in a file of 16 come to. Sensors have 10 to 14."""


def load_examples(
    labeled: LabeledSet,
    classes: Sequence[str],
    settings: TrainSettings,
    problems: Problems,
    *,
    for_training: bool = False,
    scratch: Path | None = None,
    what: str = "labeled",
) -> tuple[TrainingData, list[int]]:
    """Decode labeled images and make their targets.

    Args:
        labeled: the images, each with its label.
        classes: of the network.
        settings: with a ``size`` that is not 0.
        problems: images that cannot be decoded, and labels that do not fit theirs, go there.
        for_training: as the task keeps them to augment; otherwise as a scorer decodes them.
        scratch: a folder for what does not fit into memory.
        what: the images are, for the progress bar.

    Returns:
        The data, and the rows of ``labeled`` that they are of.

    Raises:
        LabelError: one cannot be used and is not to be left out, or none can.
    """
    task = get_task(settings.task)
    spec = task.training_spec(settings) if for_training else settings.image_spec()
    classes = tuple(classes)
    cut = CutOff(settings.image_spec(), task.unit)

    def example(row: int, out: Pixels) -> Any:
        item, label = labeled.items[row], labeled.labels[row]
        return task.example(item, label, classes, spec, for_training, out, cut)

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
    if note := _note_dark(labeled.take(rows), images, settings):
        problems.note(note)
    return TrainingData(images[: len(rows)], kept, classes, labeled.sha256, cut), rows


def _note_dark(labeled: LabeledSet, images: Pixels, settings: TrainSettings) -> str:
    """What to know where images are nearly black, as those of a 12-bit sensor in 16 bits are.

    Where only some are, the others must be of 8 bits: a sensor of 16 bits has dark images too.

    Args:
        labeled: N images.
        images: what they were decoded to, uint8 [N, H, W, 3].
        settings: they were decoded with.
    """
    rows = range(0, len(labeled), max(1, len(labeled) // LOOKED_AT))
    most = {row: int(images[row].max()) for row in rows}
    black = [row for row in rows if most[row] <= DARK]
    if settings.white or not black:
        return ""
    deep = [value for row in black if (value := _largest(labeled, row))]
    some = len(black) < len(rows)
    if some and (not deep or any(_largest(labeled, row) for row in rows if most[row] > DARK)):
        return ""
    dark = (
        f"{labeled.origin}: {'some' if some else 'the'} images look nearly black: of {len(rows)} "
        "that were checked "
    )
    if not deep:
        return (
            f"{dark}none has a value above {max(most.values())} of 255; check how they were saved"
        )
    white = 2 ** max(deep).bit_length() - 1
    return (
        f"{dark}{len(deep)} have 16 bits and no value above {max(deep)}; if {white} is white, "
        f"pass --white {white}"
    )


def _largest(labeled: LabeledSet, row: int) -> int | None:
    return largest_of_16_bits(labeled.items[row].read())
