"""Settings that are left open, decided for the labeled images at hand, and said with the reason."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
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
from lloss.tasks.train_settings import PLAIN, TrainSettings
from lloss.text.counts import counted
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

    def filled(self, why: str, **values: Any) -> Decided:
        """Give these settings a value where they are still automatic, and say so."""
        values = {n: value for n, value in values.items() if n in self.settings.undecided}
        if not values:
            return self
        what = ", ".join(f"{name} = {value}" for name, value in values.items())
        lines = [*self.lines, f"automatic: {what} ({why})"]
        return Decided(dataclasses.replace(self.settings, **values), lines)


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
    decided = Decided(settings, [])
    if start:
        why = "as in the run to start from"
        spec = start.image_spec(fit=settings.fit)
        own = {"share": spec.share, "resample": spec.resample}
        decided = decided.filled(why, weights=start.weights, size=start.size, **own)
    decided = _input_decided(task, made, decided, labeled.items)
    settings = decided.settings
    recipe = dict(made.recipe(settings, settings.weights != "none"))
    budget, most = recipe.pop("steps"), recipe.pop("batch_size")
    least = recipe.pop("least_epochs")
    if "optimizer" in settings.undecided and settings.lr >= HIGH * recipe["lr"]:
        decided.lines.append(
            f"note: the rate {settings.lr:g} is {settings.lr / recipe['lr']:.3g} times what suits "
            f"{settings.model} with {recipe['optimizer']}; leave --lr out, or choose an --optimizer"
        )
    decided = decided.filled(f"what suits {settings.model}", **recipe)
    why = f"at most {most}" if most < len(labeled) else "all images"
    decided = decided.filled(why, batch_size=min(most, len(labeled)))
    steps = steps_of(len(labeled), decided.settings.batch_size)
    epochs, why = epochs_of(budget, steps, least)
    return decided.filled(why, epochs=epochs)


def decide_input(task: Task, settings: TrainSettings, items: Sequence[Item]) -> Decided:
    """Replace the automatic weights and size alone, for images that nobody has labeled yet."""
    made = task.networks(settings.model, settings.model_args)
    return _input_decided(task, made, Decided(settings, []), items)


def _input_decided(task: Task, made: Networks, decided: Decided, items: Sequence[Item]) -> Decided:
    if "weights" in decided.settings.undecided:
        weights, why = made.start_weights(decided.settings)
        decided = decided.filled(why, weights=weights)
        task.check_settings(decided.settings)  # other settings may need trained weights
    if "size" in decided.settings.undecided:
        size, why = _size(made, decided.settings, items)
        decided = decided.filled(why, size=size)
    asked = made.resizing(decided.settings)
    decided = decided.filled(f"as the weights of {decided.settings.model} were trained", **asked)
    plain = {name: value for name, value in PLAIN.items() if name in decided.settings.undecided}
    decided = Decided(dataclasses.replace(decided.settings, **plain), decided.lines)
    if note := made.assumed(decided.settings):
        decided.lines.append(f"note: {note}")
    return decided


def epochs_of(budget: int, steps: int, least: int) -> tuple[int, str]:
    """Return the epochs, of so many steps each, that a budget of steps becomes, and why."""
    epochs = min(max(round(budget / steps), least), EPOCHS)
    why = f"{counted(steps, 'step')} each, of a budget of {budget:,}"
    if epochs in (least, EPOCHS):
        why += f"; {'at least' if epochs == least else 'at most'} {epochs}"
    return epochs, why


def _size(made: Networks, settings: TrainSettings, items: Sequence[Item]) -> tuple[int, str]:
    """The images' own size, as far as the network takes it: more pixels hold nothing more."""
    least, own = made.input_sizes(settings)
    if least == own:
        return own, f"what {settings.model} is made for"
    sample = items[:: max(1, len(items) // SAMPLE)]
    sizes = [found for item in sample if (found := _size_of(item)) is not None]
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
