"""SSD's random change of training images (Liu et al. 2016, section 2.2, "Data augmentation").

Draws are those of torchvision's transforms. They decide on a window, which may reach over the
image's edges; only then pixels are touched, once: what the window shows is resized into place.
torchvision's own chain fills and resizes a canvas a draw, and takes four times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lloss.images.decode import Fit
from lloss.tasks.detection.box_targets import Objects
from lloss.tasks.task import Share
from lloss.tasks.train_settings import TrainSettings

KINDS = ("none", "flip", "crop", "flip-crop", "ssd")  # ssd: all, colours, and zoomed out

STORED_SCALE = 1.7
"""Training images are kept so much larger than the input: a crop of them still has its detail."""

LEAST_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Least overlaps of a crop and a box; one is drawn per image, 1 keeps the whole image."""

TRIALS = 40  # rectangles that are drawn for a minimum
SMALLEST = 0.3  # side of a crop over that of the image
ASPECTS = 0.5, 2.0  # width of a crop over its height
LARGEST_CANVAS = 4.0  # side of what an image is zoomed out to over its own

COLORS = v2.RandomPhotometricDistort()

Window: TypeAlias = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels of an image, perhaps larger than it."""


def augment_boxes(
    images: Tensor,
    targets: Sequence[Objects],
    settings: TrainSettings,
    generator: Generator,
    share: Share | None = None,
) -> tuple[Tensor, list[Objects]]:
    """Change a batch: uint8 [N, h, w, 3] with padding to uint8 [N, size, size, 3].

    All draws follow from ``generator``, each image's from a seed of its own; torch's global one is
    restored. ``share`` where the images are not all of the batch.
    """
    drawn, own = (share.of, share.rows) if share else (len(images), slice(None))
    seeds = torch.randint(2**62, (drawn,), generator=generator)[own].tolist()
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, objects, seed in zip(images, targets, seeds):
            torch.default_generator.manual_seed(seed)
            changed.append(_changed(image, objects, settings))
    return torch.stack([image for image, _ in changed]), [objects for _, objects in changed]


def _changed(image: Tensor, objects: Objects, settings: TrainSettings) -> tuple[Tensor, Objects]:
    x0, y0, x1, y1 = objects.frame
    frame, side = image[y0:y1, x0:x1].permute(2, 0, 1), settings.size
    objects = objects.moved((1, 1), (-x0, -y0), x1 - x0, y1 - y0)
    window = _window(objects, x1 - x0, y1 - y0, settings)
    left, top, right, bottom = window
    scale = side / (right - left), side / (bottom - top)
    offset = -left * scale[0], -top * scale[1]
    shown = objects.within(*window).moved(scale, offset, side, side)
    pixels = _pixels(frame, window, settings)
    if settings.augment in ("flip", "flip-crop", "ssd") and torch.rand(()) < 0.5:
        pixels, shown = pixels.flip(2), shown.mirrored(side)
    return pixels.permute(1, 2, 0), shown


def _window(objects: Objects, width: int, height: int, settings: TrainSettings) -> Window:
    """Zoom half of the images out, then crop, and take the part that the input shows."""
    left, top = 0, 0
    if settings.augment == "ssd" and torch.rand(()) < 0.5:
        factor = 1 + (LARGEST_CANVAS - 1) * torch.rand(1)
        canvas_width, canvas_height = int(width * factor), int(height * factor)
        across, down = torch.rand(2)
        left = -int((canvas_width - width) * across)
        top = -int((canvas_height - height) * down)
        width, height = canvas_width, canvas_height
    if settings.augment in ("crop", "flip-crop", "ssd") and len(objects):
        boxes = objects.boxes - torch.tensor([left, top, left, top])
        if cut := draw_crop(boxes, width, height, settings.fit):
            left, top = left + cut[0], top + cut[1]
            width, height = cut[2] - cut[0], cut[3] - cut[1]
    edges = torch.tensor([[left, top, left + width, top + height]])
    x0, y0, x1, y1 = fitted(edges, settings.fit)[0].tolist()
    return x0, y0, x1, y1


def fitted(rectangles: Tensor, fit: Fit) -> Tensor:
    """Return the part of rectangles, [T, 4] in whole pixels, that an input of equal sides shows.

    ``crop`` shows the middle square, ``pad`` the square around, ``stretch`` all.
    """
    if fit == "stretch":
        return rectangles
    sides = rectangles[:, 2:] - rectangles[:, :2]
    side = sides.amin(1, keepdim=True) if fit == "crop" else sides.amax(1, keepdim=True)
    corner = rectangles[:, :2] + (sides - side).div(2, rounding_mode="floor")
    return torch.cat([corner, corner + side], 1)


def draw_crop(
    boxes: Tensor, width: int, height: int, fit: Fit, least_ious: Sequence[float] = LEAST_IOUS
) -> Window | None:
    """Draw a crop as torchvision's ``RandomIoUCrop``, all trials at once; None keeps all.

    What the input shows of the crop, by ``fit``, is returned. Of the boxes [M, 4] whose centre is
    in it, one overlaps it by the drawn minimum IoU or more.
    """
    while True:
        least = least_ious[int(torch.randint(len(least_ious), ()))]
        if least >= 1:
            return None
        crops = fitted(_rectangles(width, height), fit)
        crops = crops[_overlap(crops, boxes) >= least]
        if len(crops):
            x0, y0, x1, y1 = map(int, crops[0].tolist())
            return x0, y0, x1, y1


def _rectangles(width: int, height: int) -> Tensor:
    """Draw rectangles in whole pixels of allowed sizes and shapes: float [T, 4]."""
    draws = torch.rand(TRIALS, 4)
    full = torch.tensor([width, height])
    sides = (full * (SMALLEST + (1.0 - SMALLEST) * draws[:, :2])).floor()
    corner = ((full - sides) * draws[:, 2:]).floor()
    aspect = sides[:, 0] / sides[:, 1]
    allowed = (aspect >= ASPECTS[0]) & (aspect <= ASPECTS[1])
    return torch.cat([corner, corner + sides], 1)[allowed & (sides >= 1).all(1)]


def _overlap(crops: Tensor, boxes: Tensor) -> Tensor:
    """The largest IoU of each crop with a box whose centre is in it; -1 without any."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[None]
    inside = ((centre > crops[:, None, :2]) & (centre < crops[:, None, 2:])).all(2)
    overlap: Tensor = box_iou(crops, boxes).masked_fill(~inside, -1).amax(1)
    return overlap


def _pixels(frame: Tensor, window: Window, settings: TrainSettings) -> Tensor:
    """The window's pixels in an image of the input's size: uint8 [3, size, size]."""
    (left, top, right, bottom), side = window, settings.size
    fill = [0.0] * 3 if settings.fit == "pad" else [round(255 * mean) for mean in settings.mean]
    filled = torch.tensor(fill, dtype=frame.dtype)[:, None, None].repeat(1, side, side)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(right, frame.shape[2]), min(bottom, frame.shape[1])
    if x0 >= x1 or y0 >= y1:  # a crop beside the image, of the zoomed-out canvas alone
        return filled
    a, c = (round((x - left) * side / (right - left)) for x in (x0, x1))
    b, d = (round((y - top) * side / (bottom - top)) for y in (y0, y1))
    c, d = max(c, a + 1), max(d, b + 1)
    pixels: Tensor = F.resize_image(frame[:, y0:y1, x0:x1], [d - b, c - a])
    if settings.augment == "ssd":
        pixels = COLORS(tv_tensors.Image(pixels)).as_subclass(Tensor)
    if pixels.shape[1:] == filled.shape[1:]:
        return pixels
    filled[:, b:d, a:c] = pixels
    return filled
