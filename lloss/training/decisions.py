"""Settings that are left open, decided for the labeled images at hand, and said with the reason."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError
from lloss.images.decode import size_of
from lloss.pools import Item
from lloss.tasks.networks import Networks
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.training_data import PAIRS, steps_of

SAMPLE = 64  # Images whose size is looked at, spread over the labeled ones
HEADER = 1 << 16  # Bytes of a file that are enough for its size, except in some TIFF
MULTIPLE = 32  # Of the input's side: most networks shrink an image so many times

LEAST, LEAST_TRAINED = 64, 96
"""Sides in pixels below which a network for large images learns little, from random weights and
from trained ones: its last feature map would be a pixel or two."""

HIGH = 10
"""A rate of the user's that is so many times the optimizer's own is worth a note: before one was
chosen for each network, it was SGD."""

EPOCHS = 100  # The most that a budget of steps becomes: more of few images only overfits


@dataclass(frozen=True)
class Decided:
    """Settings without an automatic value, and a line on each that was one."""

    settings: TrainSettings
    lines: list[str]


def decide(
    task: Task, settings: TrainSettings, labeled: LabeledSet, start: TrainSettings | None = None
) -> Decided:
    """Replace every automatic value by one that suits these labeled images.

    ``start`` are the settings of the run that a warm start takes its weights from: their weights
    and size go on. Explicit values are never changed. Raises ``LabelError`` for less than two
    images, which the head cannot compare.
    """
    if len(labeled) < 2:
        raise LabelError(f"{labeled.origin}: {len(labeled)} labeled image to train on: {PAIRS}")
    made = task.networks(settings.model, settings.model_args)
    lines: list[str] = []

    def decided(why: str, **values: Any) -> None:
        nonlocal settings
        values = {name: value for name, value in values.items() if name in settings.undecided}
        if values:
            what = ", ".join(f"{name} = {value}" for name, value in values.items())
            lines.append(f"automatic: {what} ({why})")
            settings = dataclasses.replace(settings, **values)

    if start:
        decided("as in the run to start from", weights=start.weights, size=start.size)
    if "weights" in settings.undecided:
        weights, why = made.start_weights(settings)
        decided(why, weights=weights)
        task.check_settings(settings)  # other settings may need trained weights
    if "size" in settings.undecided:
        size, why = _size(made, settings, labeled)
        decided(why, size=size)
    if note := made.assumed(settings):
        lines.append(f"note: {note}")
    recipe = dict(made.recipe(settings, settings.weights != "none"))
    budget, most = recipe.pop("steps"), recipe.pop("batch_size")
    least = recipe.pop("least_epochs")
    if "optimizer" in settings.undecided and settings.lr >= HIGH * recipe["lr"]:
        lines.append(
            f"note: the rate {settings.lr:g} is {settings.lr / recipe['lr']:.3g} times what suits "
            f"{settings.model} with {recipe['optimizer']}; leave --lr out, or choose an --optimizer"
        )
    decided(f"what suits {settings.model}", **recipe)
    why = f"at most {most}" if most < len(labeled) else "all images"
    decided(why, batch_size=min(most, len(labeled)))
    epochs, why = epochs_of(budget, steps_of(len(labeled), settings.batch_size), least)
    decided(why, epochs=epochs)
    return Decided(settings, lines)


def epochs_of(budget: int, steps: int, least: int) -> tuple[int, str]:
    """Return the epochs, of so many steps each, that a budget of steps becomes, and why."""
    epochs = min(max(round(budget / steps), least), EPOCHS)
    each = "1 step" if steps == 1 else f"{steps:,} steps"
    why = f"{each} each, of a budget of {budget:,}"
    if epochs in (least, EPOCHS):
        why += f"; {'at least' if epochs == least else 'at most'} {epochs}"
    return epochs, why


def _size(made: Networks, settings: TrainSettings, labeled: LabeledSet) -> tuple[int, str]:
    """The images' own size, as far as the network takes it: more pixels hold nothing more."""
    least, own = made.input_sizes(settings)
    if least == own:
        return own, f"what {settings.model} is made for"
    rows = range(0, len(labeled), max(1, len(labeled) // SAMPLE))
    sizes = [found for row in rows if (found := _size_of(labeled.items[row])) is not None]
    if not sizes:
        return own, f"what {settings.model} is made for"
    floor = LEAST if settings.weights == "none" else LEAST_TRAINED
    if own >= floor:
        least = max(least, floor)
    # A crop shows the shorter side; the other fits shrink the longer one to the input's.
    side = median(min(each) if settings.fit == "crop" else max(each) for each in sizes)
    multiple = min(least, MULTIPLE)
    chosen = min(max(-(-int(side) // multiple) * multiple, least), own)
    end = "shorter" if settings.fit == "crop" else "longer"
    return chosen, (
        f"the {end} side of the images is {side:g} pixels in the median; {least} to {own} suit "
        f"{settings.model}"
    )


def _size_of(item: Item) -> tuple[int, int] | None:
    """Height and width by the header; None for an unreadable image, which is reported later."""
    try:
        if isinstance(item.file, bytes):
            with Path(os.fsdecode(item.file)).open("rb") as file:
                return size_of(file.read(HEADER))
    except (OSError, ImageError):
        pass  # the header is longer, or read() says what is wrong
    try:
        return size_of(item.read())
    except ImageError:
        return None
