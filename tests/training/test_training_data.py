from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.pools import Item
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.training_data import Batches, TrainingData, load_examples

_8_BITS = ("bright", "dark")


@pytest.mark.parametrize(
    ("values", "noted"),
    [
        ([4095] * 4, 4),
        ([4095, 4095, "bright", "dark"], 2),
        ([4095] * 3 + [40000], 0),  # such a sensor has dark images too
        (["bright", "dark"] * 2, 0),
    ],
)
def test_images_that_use_few_of_their_16_bits_are_noted(
    values: list[Any], noted: int, tiny: TrainSettings, encoded: Callable[..., bytes]
) -> None:
    items = []
    for row, value in enumerate(values):
        pixels = np.full((8, 8), {"bright": 200, "dark": 9}.get(value, value))
        raw = encoded(Image.fromarray(pixels.astype(np.uint8 if value in _8_BITS else np.uint16)))
        items.append(Item(f"{row}.png", lambda raw=raw: raw))
    labeled, problems = LabeledSet(items, ["a", "b", "a", "b"], "labels.csv"), Problems()
    data, _ = load_examples(labeled, ("a", "b"), tiny, problems)
    assert len(problems.notes) == (noted > 0)
    for note in problems.notes:
        assert f"of 4 that were checked {noted} have 16 bits and no value above 4095" in note
        assert note.endswith("if 4095 is white, pass --white 4095")
        assert data.images[0].max() == 15
        plain = Problems()
        data, _ = load_examples(labeled, ("a", "b"), dataclasses.replace(tiny, white=4095), plain)
        assert not plain.notes and data.images[0].max() == 255


def test_worker_processes_give_the_same_batches_from_any_step_on(
    make_data: Callable[..., TrainingData], tiny: TrainSettings
) -> None:
    batches = Batches(get_task("classification"), tiny, make_data(20))
    assert batches.steps == 3
    whole = list(batches.stream(0, 0))
    resumed = list(batches.stream(1, 1, workers=2))
    assert len(whole) == 6 and len(resumed) == 2
    for one, other in zip(whole[4:], resumed):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
