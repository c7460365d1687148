from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from lloss.errors import LabelError, SettingsError
from lloss.images.decode import ImageSpec
from lloss.pools import Item
from lloss.tasks import TASKS, get_task
from lloss.tasks.task import Decoding
from lloss.tasks.train_settings import TrainSettings

TASK = get_task("classification")
OBJECTIVE = TASK.objective(TrainSettings(), ("a", "b"))


def _logits(count: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, classes, generator=generator) * 3
    return logits, torch.randint(classes, (count,), generator=generator)


def _augmented(images: Tensor, settings: TrainSettings, seed: int = 0) -> Tensor:
    generator = Generator().manual_seed(seed)
    found, targets = TASK.augment(images, torch.arange(len(images)), settings, generator)
    assert torch.equal(targets, torch.arange(len(images)))
    return found


def _random_images(count: int = 64, height: int = 6, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, height, width, 3)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def test_a_task_comes_by_its_name() -> None:
    assert [get_task(name).name for name in TASKS] == list(TASKS)
    with pytest.raises(SettingsError, match=r"task 'sorting': choose one of classification"):
        get_task("sorting")


def test_the_loss_is_the_cross_entropy_in_nats() -> None:
    logits, targets = _logits()
    for row, target, loss in zip(
        logits.tolist(),
        targets.tolist(),
        OBJECTIVE.loss_per_image(logits, targets),
        strict=True,
    ):
        expected = math.log(sum(map(math.exp, row))) - row[target]
        assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert OBJECTIVE.loss_per_image(logits.bfloat16(), targets).dtype == torch.float32


def test_the_outputs_are_their_formulas() -> None:
    logits, _ = _logits()
    outputs = OBJECTIVE.outputs(logits)
    for n, row in enumerate(logits.tolist()):
        total = sum(map(math.exp, row))
        shares = sorted((math.exp(x) / total for x in row), reverse=True)
        entropy = -sum(p * math.log(p) for p in shares)
        assert outputs["entropy"][n].item() == pytest.approx(entropy, abs=1e-5)
        assert outputs["margin"][n].item() == pytest.approx(shares[0] - shares[1], abs=1e-5)
        assert outputs["confidence"][n].item() == pytest.approx(shares[0], abs=1e-5)
        assert outputs["prediction"][n].item() == row.index(max(row))
    assert all(output.dtype == torch.float32 for output in outputs.values())
    assert all(output.shape == (6,) for output in outputs.values())


def test_the_prediction_is_the_most_probable_class() -> None:
    logits, _ = _logits()
    objective = TASK.objective(TrainSettings(), "abcd")
    predictions, outputs = objective.predictions(logits), objective.outputs(logits)
    assert predictions is not None
    numbers, sure = outputs["prediction"].tolist(), outputs["confidence"].tolist()
    assert [one.label for one in predictions] == ["abcd"[int(number)] for number in numbers]
    assert [one.confidence for one in predictions] == pytest.approx(sure)


@pytest.mark.parametrize(("classes", "size"), [(2, 2), (10, 10), (100, 10)])
def test_the_summary_is_the_largest_log_probabilities_in_falling_order(
    classes: int, size: int
) -> None:
    logits, _ = _logits(classes=classes)
    found = OBJECTIVE.summary(logits)
    assert TASK.objective(TrainSettings(), ["x"] * classes).summary_size == size
    assert found.shape == (6, size)
    for row, summary in zip(logits.tolist(), found, strict=True):
        total = math.log(sum(map(math.exp, row)))
        expected = sorted((x - total for x in row), reverse=True)[:size]
        expected = [max(value, -16.0) for value in expected]
        assert summary.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_flip_mirrors_about_half_of_the_images_left_to_right(tiny: TrainSettings) -> None:
    images = _random_images(400)
    found = _augmented(images, replace(tiny, augment="flip"))
    kept = (found == images).flatten(1).all(1)
    mirrored = (found == images.flip(2)).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_a_crop_is_a_window_of_the_zero_padded_image(tiny: TrainSettings) -> None:
    images = _random_images(200, 6, 7)
    found = _augmented(images, replace(tiny, augment="crop", crop_padding=2))
    assert found.shape == images.shape
    corners = set()
    for before, after in zip(images, found, strict=True):
        padded = torch.zeros(6 + 4, 7 + 4, 3, dtype=torch.uint8)
        padded[2:8, 2:9] = before
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(padded[y : y + 6, x : x + 7], after)
        ]
        assert len(places) == 1
        corners.update(places)
    assert len(corners) == 25  # all windows come about, the unmoved one among them


def _items(*names: str) -> list[Item]:
    pixels = np.full((8, 8, 3), 7, np.uint8)
    return [Item(name, lambda: pixels) for name in names]


def test_a_target_is_the_position_in_the_classes() -> None:
    spec, out = ImageSpec(8, 8), np.empty((8, 8, 3), np.uint8)
    classes = ("cat", "cow", "dog")
    items = _items("a", "b", "c")
    found = [
        TASK.example(item, label, Decoding(classes, spec), out)
        for item, label in zip(items, ("dog", "cat", "dog"))
    ]
    assert found == [2, 0, 2]
    assert (out == 7).all()
    together = TASK.collate(found)
    assert together.dtype == torch.int64 and together.tolist() == found


def test_a_class_the_model_does_not_know_has_no_loss() -> None:
    out = np.empty((8, 8, 3), np.uint8)
    how = Decoding(("cat", "dog"), ImageSpec(8, 8))
    assert TASK.example(_items("b")[0], "cow", how, out) == -1
    assert not TASK.has_loss("cow", ("cat", "dog"))
    losses = OBJECTIVE.loss_per_image(torch.randn(2, 2), torch.tensor([-1, 1]))
    assert losses[0] == 0 < losses[1]


def test_one_class_alone_is_refused_by_name() -> None:
    with pytest.raises(LabelError, match="all 24 labels are 'cat': label a second class"):
        TASK.check(["cat"] * 24, ("cat",))
    with pytest.raises(LabelError, match="the only label is 'cat': label a second class"):
        TASK.check(["cat"], ("cat",))
    TASK.check(["cat", "dog"], ("cat", "dog"))


def test_images_of_unknown_classes_are_misses() -> None:
    meter = OBJECTIVE.meter(["a", "b", "a", "unknown"])
    meter.update(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), [0, 1])
    meter.update(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), [0, -1])
    assert meter.figures() == {"accuracy": 2 / 4}


def test_the_layers_that_speak_of_classes_are_the_last() -> None:
    names = ["conv.weight", "fc.0.weight", "head.fc.weight", "head.fc.bias"]
    assert TASK.class_layers(names) == ("head.fc.weight", "head.fc.bias")
