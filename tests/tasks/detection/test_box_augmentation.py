from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from lloss.images.decode import Fit
from lloss.tasks.detection import box_augmentation
from lloss.tasks.detection.box_augmentation import Window, augment_boxes, draw_crop, fitted
from lloss.tasks.detection.box_targets import Objects
from lloss.tasks.train_settings import TrainSettings

SETTINGS = TrainSettings(
    task="detection",
    size=100,
    fit="stretch",
    augment="ssd",
    mean=(120 / 255, 60 / 255, 30 / 255),
)
FRAME = (0, 20, 160, 140)
"""An image of 160×120 pixels in a square of 160."""

GREEN = torch.tensor([0, 255, 0], dtype=torch.uint8)
BOX = [[40.0, 50, 100, 110]]


@pytest.fixture
def plain_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours stay, so that a rectangle can be found again."""
    monkeypatch.setattr(box_augmentation, "COLORS", torch.nn.Identity())


def _scene(boxes: list[list[float]]) -> tuple[Tensor, Objects]:
    """A red image in black padding with green rectangles."""
    image = torch.zeros(160, 160, 3, dtype=torch.uint8)
    left, top, right, bottom = FRAME
    image[top:bottom, left:right, 0] = 200
    for x0, y0, x1, y1 in boxes:
        image[int(y0) : int(y1), int(x0) : int(x1)] = GREEN
    count = len(boxes)
    return image, Objects(
        torch.tensor(boxes).reshape(-1, 4),
        torch.arange(1, count + 1),
        torch.arange(count) % 2 == 1,
        torch.zeros(count, dtype=torch.bool),
        FRAME,
    )


def _augmented(
    boxes: list[list[float]], count: int, seed: int = 0, **changes: Any
) -> tuple[Tensor, list[Objects]]:
    image, objects = _scene(boxes)
    generator, settings = Generator().manual_seed(seed), dataclasses.replace(SETTINGS, **changes)
    return augment_boxes(image.expand(count, -1, -1, -1), [objects] * count, settings, generator)


def _found(image: Tensor) -> list[float] | None:
    """The box of the pixels that are green."""
    pixels = image.int()
    green = (pixels[:, :, 1] > 160) & (pixels[:, :, 0] < 100)
    rows, columns = green.any(1).nonzero(), green.any(0).nonzero()
    if not len(rows):
        return None
    return [float(x) for x in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.usefixtures("plain_colors")
@pytest.mark.parametrize(("fit", "least"), [("stretch", 100), ("pad", 75), ("crop", 75)])
def test_boxes_follow_the_pixels(fit: Fit, least: int) -> None:
    """Zoomed out, cropped, resized, mirrored: the rectangle is where its box says."""
    images, targets = _augmented(BOX, 120, fit=fit)
    seen = 0
    for image, objects in zip(images, targets, strict=True):
        if len(objects) and (found := _found(image)):
            assert objects.boxes[0].tolist() == pytest.approx(found, abs=1.6)
            seen += 1
    assert seen > least
    widths = [float(o.boxes[0, 2] - o.boxes[0, 0]) for o in targets if len(o)]
    assert min(widths) < 20 and max(widths) > 70  # small where zoomed out, large in crops


def test_without_any_change_the_image_is_stretched() -> None:
    images, targets = _augmented(BOX, 2, augment="none")
    assert images.shape == (2, 100, 100, 3)
    assert torch.equal(images[0], images[1])
    assert targets[0].boxes[0].tolist() == pytest.approx([25, 25, 62.5, 75])
    assert _found(images[0]) == pytest.approx([25, 25, 62.5, 75], abs=1)
    assert targets[0].frame == (0, 0, 100, 100)
    assert not (images[0] == 0).all(2).any()  # the padding is gone


def test_a_flip_mirrors_about_half() -> None:
    images, targets = _augmented([[0.0, 50, 40, 110]], 200, augment="flip")
    left = torch.stack([objects.boxes[0, 0] == 0 for objects in targets])
    assert 70 < left.sum() < 130
    mirrored = images[~left][0].flip(1)
    assert torch.equal(mirrored, images[left][0])


def test_boxes_that_a_crop_loses_are_dropped_with_their_labels() -> None:
    """Those whose centre is cut off; what stays keeps its label and its difficulty."""
    boxes = [[0.0, 20, 40, 60], [120, 100, 160, 140], [60, 60, 100, 100]]
    _, targets = _augmented(boxes, 150, augment="flip-crop")
    lost = [objects for objects in targets if len(objects) < 3]
    assert len(lost) > 50
    assert all(len(objects) for objects in targets)
    for objects in targets:
        assert objects.labels.tolist() == sorted(objects.labels.tolist())
        assert objects.difficult.tolist() == [n == 2 for n in objects.labels.tolist()]
        assert (objects.boxes >= 0).all() and (objects.boxes <= 100).all()
        assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()


@pytest.mark.usefixtures("plain_colors")
def test_zooming_out_fills_with_the_mean() -> None:
    images, _ = _augmented([], 40)  # without an object no crop is cut out
    fill = (images == torch.tensor([120, 60, 30], dtype=torch.uint8)).all(3).flatten(1)
    zoomed = fill.any(1)
    assert 10 < zoomed.sum() < 30
    assert fill[zoomed].float().mean() > 0.5  # on average 5/6 of the area around
    assert torch.equal(images[~zoomed][0], images[~zoomed][1])


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_one() -> None:
    boxes = [*BOX, [10.0, 30, 60, 70]]
    torch.manual_seed(1)
    images, targets = _augmented(boxes, 12, seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, targets_again = _augmented(boxes, 12, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, again)
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(targets, targets_again, strict=True))
    assert not torch.equal(images, _augmented(boxes, 12, seed=4)[0])


HEIGHT, WIDTH = 240, 320
BOXES = torch.tensor([[20.0, 30, 180, 200], [200, 100, 310, 230], [5, 5, 60, 60]])


def _crops(count: int, least: float, fit: Fit = "stretch") -> list[Window]:
    torch.manual_seed(0)
    drawn = [draw_crop(BOXES, WIDTH, HEIGHT, fit, [least]) for _ in range(count)]
    return [crop for crop in drawn if crop]


@pytest.mark.parametrize("least", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_the_least_iou_is_enforced(fit: Fit, least: float) -> None:
    """Of the boxes whose centre is within the crop, one overlaps it by the drawn minimum."""
    smallest = 1.0
    for crop in torch.tensor(_crops(60, least, fit)).float():
        assert fit == "stretch" or crop[2] - crop[0] == crop[3] - crop[1]
        centre = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        held = ((centre > crop[:2]) & (centre < crop[2:])).all(1)
        assert held.any()
        smallest = min(smallest, float(box_iou(BOXES[held], crop[None]).max()))
    assert least <= smallest < least + 0.2


def test_crops_are_those_of_the_paper_and_as_large_as_torchvisions() -> None:
    for x0, y0, x1, y1 in _crops(200, 0.0):
        assert 0 <= x0 <= x1 - 0.3 * WIDTH + 1 and x1 <= WIDTH
        assert 0 <= y0 <= y1 - 0.3 * HEIGHT + 1 and y1 <= HEIGHT
        assert 0.5 <= (x1 - x0) / (y1 - y0) <= 2
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    crop = v2.RandomIoUCrop(sampler_options=[0.3])
    drawn = (crop.make_params([boxes]) for _ in range(300))
    theirs = torch.tensor([[cut["width"], cut["height"]] for cut in drawn]).float().mean(0)
    ours = torch.tensor(_crops(300, 0.3)).float().mean(0)
    assert (ours[2:] - ours[:2] - theirs).abs().max() < 15


def test_one_draw_in_seven_keeps_the_image() -> None:
    """And so does a draw whose trials all fail, in the end."""
    torch.manual_seed(0)
    whole = sum(draw_crop(BOXES, WIDTH, HEIGHT, "stretch") is None for _ in range(400))
    assert 30 < whole < 160


def test_an_input_shows_the_middle_of_a_rectangle_or_what_is_around() -> None:
    rectangles = torch.tensor([[10, 20, 40, 31], [-5, 0, 5, 21], [1, 2, 4, 5]])
    assert torch.equal(fitted(rectangles, "stretch"), rectangles)
    assert fitted(rectangles, "crop").tolist() == [[19, 20, 30, 31], [-5, 5, 5, 15], [1, 2, 4, 5]]
    assert fitted(rectangles, "pad").tolist() == [[10, 10, 40, 40], [-11, 0, 10, 21], [1, 2, 4, 5]]
