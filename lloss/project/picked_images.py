"""The selected images, read a few at a time, with what the model found on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lloss.annotations.prediction import Prediction
from lloss.errors import ImageError
from lloss.images.decode import Raw, size_of
from lloss.pools import Item
from lloss.project.pick_predictions import Predictions

_BATCH = 16  # Images in memory at a time


@dataclass(frozen=True)
class PickedImage:
    """An item, as it was read."""

    item: Item
    raw: Raw
    size: tuple[int, int]  # height and width of the upright image
    prediction: Prediction | None  # in its pixels, unsure objects included


def read_picked(items: Iterable[Item], predictions: Predictions | None) -> Iterator[PickedImage]:
    """Read and predict items in their order, without those that cannot be read."""
    stream = iter(items)
    while batch := list(itertools.islice(stream, _BATCH)):
        read = [each for item in batch if (each := _read(item))]
        found: list[Prediction | None] = [None] * len(read)
        if predictions and read:
            found = predictions.of([(item, raw) for item, raw, _ in read])
        for (item, raw, size), prediction in zip(read, found):
            yield PickedImage(item, raw, size, prediction)


def _read(item: Item) -> tuple[Item, Raw, tuple[int, int]] | None:
    try:
        raw = item.read()
        return item, raw, size_of(raw)
    except ImageError:
        return None
