from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Generator, Tensor
from torchvision.ops import box_iou

from lloss.images.decode import Fit
from lloss.tasks.detection.box_augmentation import SsdAugmentation
from lloss.tasks.detection.box_targets import Objects

ALL = SsdAugmentation(100, fill=(120, 60, 30), crop=True, flip=True, photometric=True)
# Colours stay, so that a rectangle can be found again.
PLACES = dataclasses.replace(ALL, colors=torch.nn.Identity())
FRAME = (0, 20, 160, 140)
"""An image of 160×120 pixels in a square of 160."""

GREEN = torch.tensor([0, 255, 0], dtype=torch.uint8)


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
    augmentation: SsdAugmentation, boxes: list[list[float]], count: int, seed: int = 0
) -> tuple[Tensor, list[Objects]]:
    image, objects = _scene(boxes)
    generator = Generator().manual_seed(seed)
    return augmentation.batch(image.expand(count, -1, -1, -1), [objects] * count, generator)


def _found(image: Tensor) -> list[float] | None:
    """The box of the pixels that are green."""
    pixels = image.int()
    green = (pixels[:, :, 1] > 160) & (pixels[:, :, 0] < 100)
    rows, columns = green.any(1).nonzero(), green.any(0).nonzero()
    if not len(rows):
        return None
    return [float(x) for x in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.parametrize(("fit", "least"), [("stretch", 100), ("pad", 75), ("crop", 75)])
def test_boxes_follow_the_pixels(fit: Fit, least: int) -> None:
    """Zoomed out, cropped, resized, mirrored: the rectangle is where its box says."""
    chain = dataclasses.replace(PLACES, fit=fit)
    images, targets = _augmented(chain, [[40.0, 50, 100, 110]], 120)
    seen = 0
    for image, objects in zip(images, targets, strict=True):
        if len(objects) and (found := _found(image)):
            assert objects.boxes[0].tolist() == pytest.approx(found, abs=1.6)
            seen += 1
    assert seen > least
    widths = [float(o.boxes[0, 2] - o.boxes[0, 0]) for o in targets if len(o)]
    assert min(widths) < 20 and max(widths) > 70  # small where zoomed out, large in crops


def test_without_any_change_the_image_is_stretched() -> None:
    images, targets = _augmented(SsdAugmentation(100), [[40.0, 50, 100, 110]], 2)
    assert images.shape == (2, 100, 100, 3)
    assert torch.equal(images[0], images[1])
    assert targets[0].boxes[0].tolist() == pytest.approx([25, 25, 62.5, 75])
    assert _found(images[0]) == pytest.approx([25, 25, 62.5, 75], abs=1)
    assert targets[0].frame == (0, 0, 100, 100)
    assert not (images[0] == 0).all(2).any()  # the padding is gone


def test_an_image_of_the_inputs_size_keeps_its_pixels() -> None:
    image, objects = _scene([[10.0, 30, 90, 90]])
    image, objects = image[:100, :100], dataclasses.replace(objects, frame=(0, 0, 100, 100))
    changed, targets = SsdAugmentation(100).batch(image[None], [objects], Generator())
    assert torch.equal(changed[0], image)
    assert torch.equal(targets[0].boxes, objects.boxes)


def test_a_flip_mirrors_about_half() -> None:
    augmentation = SsdAugmentation(100, flip=True)
    images, targets = _augmented(augmentation, [[0.0, 50, 40, 110]], 200)
    left = torch.stack([objects.boxes[0, 0] == 0 for objects in targets])
    assert 70 < left.sum() < 130
    mirrored = images[~left][0].flip(1)
    assert torch.equal(mirrored, images[left][0])


def test_boxes_that_a_crop_loses_are_dropped_with_their_labels() -> None:
    """Those whose centre is cut off; what stays keeps its label and its difficulty."""
    boxes = [[0.0, 20, 40, 60], [120, 100, 160, 140], [60, 60, 100, 100]]
    _, targets = _augmented(dataclasses.replace(PLACES, zoom=_never()), boxes, 150)
    lost = [objects for objects in targets if len(objects) < 3]
    assert len(lost) > 50
    assert all(len(objects) for objects in targets)
    for objects in targets:
        assert objects.labels.tolist() == sorted(objects.labels.tolist())
        assert objects.difficult.tolist() == [n == 2 for n in objects.labels.tolist()]
        assert (objects.boxes >= 0).all() and (objects.boxes <= 100).all()
        assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()


def _never() -> torch.nn.Module:
    from torchvision.transforms import v2

    zoom: torch.nn.Module = v2.RandomZoomOut(p=0.0)
    return zoom


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_the_crop_of_the_whole_chain_overlaps_an_object_enough(fit: Fit) -> None:
    from lloss.tasks.detection.box_augmentation import IoUCrop

    chain = dataclasses.replace(
        PLACES, fit=fit, zoom=_never(), cropping=IoUCrop(sampler_options=[0.6])
    )
    boxes = [[40.0, 50, 100, 110]]
    _, targets = _augmented(chain, boxes, 60)
    for objects in targets:
        # The object's visible part over the union of crop and object, in the crop's own pixels.
        whole = torch.tensor([[0.0, 0, 100, 100]])
        assert float(box_iou(objects.boxes, whole).max()) >= 0.58


def test_zooming_out_fills_with_the_mean() -> None:
    chain = dataclasses.replace(PLACES, crop=False)
    images, _ = _augmented(chain, [[40.0, 50, 100, 110]], 40)
    fill = (images == torch.tensor([120, 60, 30], dtype=torch.uint8)).all(3).flatten(1)
    zoomed = fill.any(1)
    assert 10 < zoomed.sum() < 30
    assert fill[zoomed].float().mean() > 0.5  # on average 5/6 of the area around


def test_images_without_objects_are_not_cropped() -> None:
    images, targets = _augmented(dataclasses.replace(PLACES, zoom=_never()), [], 10)
    assert all(len(objects) == 0 for objects in targets)
    assert torch.equal(images[0], images[9])


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_one() -> None:
    boxes = [[40.0, 50, 100, 110], [10.0, 30, 60, 70]]
    torch.manual_seed(1)
    images, targets = _augmented(ALL, boxes, 12, seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, targets_again = _augmented(ALL, boxes, 12, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, again)
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(targets, targets_again, strict=True))
    assert not torch.equal(images, _augmented(ALL, boxes, 12, seed=4)[0])
