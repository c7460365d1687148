from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.pools import Item
from lloss.tasks import get_task
from lloss.tasks.detection.box_targets import Objects
from lloss.tasks.pose.joint_targets import PersonTarget
from lloss.tasks.segmentation.mean_iou import MaskTarget
from lloss.tasks.train_settings import TrainSettings
from lloss.training.process_group import even_part
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


def _person(row: int) -> PersonTarget:
    return PersonTarget(
        names=("r-ankle", "l-ankle"),
        joints=torch.tensor([[9.0 + row, 20.0], [30.0, 25.0]]),
        annotated=torch.ones(2, dtype=torch.bool),
        size=56,
        pixel=(1.0, 1.0),
        head=9.0,
        side=56.0,
    )


def _objects(row: int) -> Objects:
    boxes = torch.tensor([[2.0, 3.0, 20.0 + row, 30.0], [10.0, 12.0, 40.0, 28.0]])
    none = torch.zeros(2, dtype=torch.bool)
    return Objects(boxes, torch.tensor([1, 2]), none, none, (0, 0, 54, 54))


def _mask(row: int) -> MaskTarget:
    return MaskTarget(np.full((54, 54), row, np.uint8))


class _OfAPackage:
    """A task that knows nothing of several processes."""

    def augment(self, images: Any, targets: Any, settings: Any, generator: Any) -> Any:
        return get_task("classification").augment(images, targets, settings, generator)


@pytest.mark.parametrize(
    ("task", "size", "target"),
    [
        ("classification", 54, int),
        ("detection", 54, _objects),
        ("pose", 56, _person),
        ("segmentation", 54, _mask),
        ("", 54, int),
    ],
)
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_take_the_batch_that_one_takes(
    task: str, size: int, target: Callable[[int], Any], processes: int
) -> None:
    """Each image, changed at random as in one process, is in one share, with its target."""
    kinds = {"detection": "ssd", "pose": "pose"}
    settings = TrainSettings(size=32, batch_size=4, augment=kinds.get(task, "flip-crop"))
    images = np.random.default_rng(0).integers(0, 255, (11, size, size, 3)).astype(np.uint8)
    data = TrainingData(images, [target(row) for row in range(11)], ("a", "b"))
    augment = (get_task(task) if task else _OfAPackage()).augment
    how: Any = SimpleNamespace(augment=augment, collate=list)
    whole = Batches(how, settings, data)
    shares = [Batches(how, settings, data) for _ in range(processes)]
    for number, each in enumerate(shares):
        each.part = lambda length, number=number: even_part(length, processes, number)
    for place in [(0, 0), (0, 2), (1, 1)]:
        pixels, targets = whole[place]
        found = [each[place] for each in shares]
        assert [len(some) for some, _ in found] == [
            len(rows) for rows in np.array_split(range(len(pixels)), processes)
        ]
        assert torch.equal(torch.cat([some for some, _ in found]), pixels)
        assert repr([target for _, some in found for target in some]) == repr(targets)
    assert not torch.equal(whole[0, 0][0], whole[1, 0][0])
