from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lloss.images.decode import Frame, ImageSpec
from lloss.tasks import get_task
from lloss.tasks.presets import resolve_settings
from lloss.tasks.segmentation.mean_iou import MaskTarget, MeanIoU

SEGMENTATION = get_task("segmentation")


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(40, 40), (31, 47), (7, 9), (20, 60)])
def test_every_pixel_of_the_image_is_judged(fit: str, size: tuple[int, int]) -> None:
    """The classes of all pixels of the image against the answer at the place that shows each."""
    random = np.random.default_rng(1)
    values = random.integers(0, 4, size).astype(np.uint8)
    spec = ImageSpec(10, 10, fit)  # type: ignore[arg-type]
    logits = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    guess, frame = logits.argmax(1)[0].numpy(), Frame.of(size, spec)
    both, union = np.zeros(3), np.zeros(3)
    for y, x in np.ndindex(*size):
        row = math.floor((y + 0.5) * frame.scale[1] + frame.offset[1])
        column = math.floor((x + 0.5) * frame.scale[0] + frame.offset[0])
        shown = 0 <= row < 10 and 0 <= column < 10
        if true := int(values[y, x]):
            answer = int(guess[row, column]) if shown else -1
            both[true - 1] += answer == true - 1
            for one in {true - 1, answer} - {-1}:
                union[one] += 1
    meter = MeanIoU(("a", "b", "c"), ())
    meter.update(logits, [MaskTarget.of(values, spec)])
    found = meter.figures()
    assert [found[f"IoU {name}"] for name in "abc"] == pytest.approx((both / union).tolist())


def test_padding_is_of_no_class_in_loss_and_metric() -> None:
    values = np.random.default_rng(0).integers(1, 4, (30, 90)).astype(np.uint8)
    target = MaskTarget.of(values, ImageSpec(30, 30, "pad"))
    padding = np.ones((30, 30), bool)
    padding[10:20] = False
    assert (target.mask[padding] == 0).all() and (target.mask[~padding] > 0).all()
    settings = resolve_settings("default", task="segmentation", size=30)
    together = SEGMENTATION.collate([target])
    assert (together[0].numpy()[padding] == -1).all()
    logits = torch.randn(1, 3, 30, 30)
    other = torch.where(torch.from_numpy(padding), torch.randn(1, 3, 30, 30) * 9, logits)
    losses = [
        SEGMENTATION.objective(settings, "abc").loss_per_image(x, together) for x in (logits, other)
    ]
    assert torch.equal(*losses)
    figures = []
    for output in (logits, other):
        meter = MeanIoU(("a", "b", "c"), ())
        meter.update(output, [target])
        figures.append(meter.figures())
    assert figures[0] == figures[1]


def test_the_interval_is_of_draws_of_images() -> None:
    """Each figure of a draw is the meter's own on the images that were drawn, as often."""
    random = np.random.default_rng(0)
    masks = [MaskTarget(m) for m in random.integers(0, 4, (6, 5, 5)).astype(np.uint8)]
    outputs = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    meter = MeanIoU(("a", "b", "c"), ("d",))
    meter.update(outputs, masks)
    weights = np.array([[2, 0, 1, 3, 0, 0], [1, 1, 1, 1, 1, 1]], float)
    found = meter.resampled(weights)
    for draw, row in enumerate(weights.astype(int)):
        again = MeanIoU(("a", "b", "c"), ("d",))
        for image, times in enumerate(row):
            for _ in range(times):
                again.update(outputs[image : image + 1], [masks[image]])
        assert {n: v[draw] for n, v in found.items()} == pytest.approx(again.figures())
    low, high = meter.intervals()["miou"]
    assert low < meter.figures()["miou"] < high
