from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.pools import Item
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.training_data import Batches, TrainingData, load_examples

CLASSES = ("a", "b")


@pytest.fixture
def sensor(encoded: Callable[..., bytes]) -> LabeledSet:
    """Images of 12 bits in files of 16."""
    items = []
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 4096, (8, 8), dtype=np.uint16)
        values[0, 0] = 4095
        raw = encoded(Image.fromarray(values))
        items.append(Item(f"{number}.png", lambda raw=raw: raw))
    return LabeledSet(items, ["a", "b", "a", "b"], "labels.csv")


def test_images_that_use_few_of_their_16_bits_are_noted(
    sensor: LabeledSet, tiny: TrainSettings
) -> None:
    problems = Problems()
    dark, _ = load_examples(sensor, CLASSES, tiny, problems)
    (note,) = problems.notes
    assert "of 4 that were checked 4 have 16 bits and no value above 4095; if 4095 is white" in note
    assert note.endswith("pass --white 4095")
    assert dark.images.max() == 15

    problems = Problems()
    bright, _ = load_examples(sensor, CLASSES, dataclasses.replace(tiny, white=4095), problems)
    assert not problems.notes
    assert bright.images.max() == 255


def test_images_of_16_bits_are_not_noted(
    sensor: LabeledSet, tiny: TrainSettings, encoded: Callable[..., bytes]
) -> None:
    bright = encoded(Image.fromarray(np.full((8, 8), 40000, np.uint16)))
    items = [*sensor.items[:3], Item("3.png", lambda: bright)]
    problems = Problems()
    load_examples(dataclasses.replace(sensor, items=items), CLASSES, tiny, problems)
    assert not problems.notes


def test_images_of_few_of_their_16_bits_are_noted_among_others_of_8(
    sensor: LabeledSet, tiny: TrainSettings, encoded: Callable[..., bytes]
) -> None:
    plain, black = (encoded(Image.fromarray(np.full((8, 8), v, np.uint8))) for v in (200, 9))
    others = [Item("2.png", lambda: plain), Item("3.png", lambda: black)]
    problems = Problems()
    mixed = dataclasses.replace(sensor, items=[*sensor.items[:2], *others])
    load_examples(mixed, CLASSES, tiny, problems)
    (note,) = problems.notes
    assert "some images look nearly black: of 4 that were checked 2 have 16 bits and no" in note
    assert note.endswith("pass --white 4095")

    problems = Problems()
    load_examples(dataclasses.replace(sensor, items=others * 2), CLASSES, tiny, problems)
    assert not problems.notes


def test_dark_images_of_colours_are_noted(
    sensor: LabeledSet, tiny: TrainSettings, encoded: Callable[..., bytes]
) -> None:
    raw = encoded(Image.fromarray(np.full((8, 8, 3), 15, np.uint8)))
    items = [Item(item.id, lambda: raw) for item in sensor.items]
    problems = Problems()
    load_examples(dataclasses.replace(sensor, items=items), CLASSES, tiny, problems)
    (note,) = problems.notes
    assert "none has a value above 15 of 255" in note


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
