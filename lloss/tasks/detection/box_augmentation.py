"""SSD's random change of training images (Liu et al. 2016, section 2.2, "Data augmentation").

Draws are those of torchvision's transforms. They decide on a window, which may reach over the
image's edges; only then pixels are touched, once: what the window shows is resized into place.
torchvision's own chain fills and resizes a canvas a draw, and takes four times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lloss.images.decode import Fit
from lloss.tasks.detection.box_targets import Objects
from lloss.tasks.train_settings import TrainSettings

KINDS = ("none", "flip", "crop", "flip-crop", "ssd")

STORED_SCALE = 1.7
"""Training images are kept so much larger than the input: a crop of them still has its detail."""

Window: TypeAlias = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels of an image, perhaps larger than it."""


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


class IoUCrop(v2.RandomIoUCrop):  # type: ignore[misc]
    """torchvision's transform with all trials of a draw made at once: twenty times as fast.

    Of the boxes whose centre is in the crop, one overlaps it by the drawn minimum IoU or more.
    """

    def make_params(self, flat_inputs: list[Any], fit: Fit = "stretch") -> dict[str, Any]:
        """Return the crop's ``left``, ``top``, ``width`` and ``height``; {} to keep all.

        Args:
            flat_inputs: one ``tv_tensors.BoundingBoxes`` as XYXY; images are ignored.
            fit: how the crop is resized to the input's square: the IoU is that of the part that
                the input shows, which is returned; with ``pad`` it may reach over the image.
        """
        (boxes,) = (x for x in flat_inputs if isinstance(x, tv_tensors.BoundingBoxes))
        height, width = boxes.canvas_size
        while True:
            least = self.options[int(torch.randint(len(self.options), ()))]
            if least >= 1:
                return {}
            crops = fitted(self._drawn(width, height), fit)
            crops = crops[_overlap(crops, boxes.as_subclass(Tensor)) >= least]
            if len(crops):
                left, top, right, bottom = map(int, crops[0].tolist())
                return {"left": left, "top": top, "width": right - left, "height": bottom - top}

    def _drawn(self, width: int, height: int) -> Tensor:
        """Draw rectangles in whole pixels of allowed sizes and shapes: float [T, 4]."""
        draws = torch.rand(self.trials, 4)
        full = torch.tensor([width, height])
        sides = (full * (self.min_scale + (self.max_scale - self.min_scale) * draws[:, :2])).floor()
        corner = ((full - sides) * draws[:, 2:]).floor()
        aspect = sides[:, 0] / sides[:, 1]
        allowed = (aspect >= self.min_aspect_ratio) & (aspect <= self.max_aspect_ratio)
        return torch.cat([corner, corner + sides], 1)[allowed & (sides >= 1).all(1)]


def _overlap(crops: Tensor, boxes: Tensor) -> Tensor:
    """The largest IoU of each crop with a box whose centre is in it; -1 without any."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[None]
    inside = ((centre > crops[:, None, :2]) & (centre < crops[:, None, 2:])).all(2)
    overlap: Tensor = box_iou(crops, boxes).masked_fill(~inside, -1).amax(1)
    return overlap


@dataclass(frozen=True)
class SsdAugmentation:
    """Change images by torch's global generator."""

    side: int  # of the input, in pixels
    fit: Fit = "stretch"  # how an image's rectangle is resized to the input's square
    fill: tuple[int, int, int] = (0, 0, 0)  # the colour around an image that is zoomed out
    crop: bool = False  # cut out a part that overlaps an object by at least a drawn IoU
    flip: bool = False  # mirror half of them
    photometric: bool = False  # change the colours, and zoom out half of the images
    colors: v2.Transform = field(default_factory=v2.RandomPhotometricDistort, repr=False)
    zoom: v2.RandomZoomOut = field(default_factory=v2.RandomZoomOut, repr=False)
    cropping: IoUCrop = field(default_factory=IoUCrop, repr=False)

    @classmethod
    def of(cls, settings: TrainSettings) -> SsdAugmentation:
        """Make it by the setting ``augment``, one of :data:`KINDS`: ``ssd`` is all of them."""
        kind = settings.augment
        red, green, blue = (round(255 * mean) for mean in settings.mean)
        return cls(
            settings.size,
            settings.fit,
            (0, 0, 0) if settings.fit == "pad" else (red, green, blue),
            crop="crop" in kind or kind == "ssd",
            flip="flip" in kind or kind == "ssd",
            photometric=kind == "ssd",
        )

    def batch(
        self, images: Tensor, targets: Sequence[Objects], generator: Generator
    ) -> tuple[Tensor, list[Objects]]:
        """Change a batch: uint8 [N, h, w, 3] to uint8 [N, side, side, 3].

        All draws follow from ``generator``; torch's global one is restored.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed = [self(image, objects) for image, objects in zip(images, targets)]
        return torch.stack([image for image, _ in changed]), [objects for _, objects in changed]

    def __call__(self, image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
        """Change one image, uint8 [h, w, 3] with its padding, to uint8 [side, side, 3]."""
        x0, y0, x1, y1 = objects.frame
        frame = image[y0:y1, x0:x1].permute(2, 0, 1)
        objects = objects.moved((1, 1), (-x0, -y0), x1 - x0, y1 - y0)
        window = self._window(objects, x1 - x0, y1 - y0)
        left, top, right, bottom = window
        scale = self.side / (right - left), self.side / (bottom - top)
        offset = -left * scale[0], -top * scale[1]
        shown = objects.within(*window).moved(scale, offset, self.side, self.side)
        pixels = self._pixels(frame, window)
        if self.flip and torch.rand(()) < 0.5:
            pixels, shown = pixels.flip(2), shown.mirrored(self.side)
        return pixels.permute(1, 2, 0), shown

    def _window(self, objects: Objects, width: int, height: int) -> Window:
        """Zoom out, then crop, and take the part that the input shows."""
        left, top = 0, 0
        if self.photometric and torch.rand(()) < self.zoom.p:
            canvas = tv_tensors.BoundingBoxes(
                objects.boxes, format="XYXY", canvas_size=(height, width)
            )
            before_x, before_y, after_x, after_y = self.zoom.make_params([canvas])["padding"]
            left, top = -before_x, -before_y
            width, height = before_x + width + after_x, before_y + height + after_y
        if self.crop and len(objects):
            moved = objects.boxes - torch.tensor([left, top, left, top])
            canvas = tv_tensors.BoundingBoxes(moved, format="XYXY", canvas_size=(height, width))
            if cut := self.cropping.make_params([canvas], self.fit):
                left, top = left + cut["left"], top + cut["top"]
                width, height = cut["width"], cut["height"]
        edges = torch.tensor([[left, top, left + width, top + height]])
        x0, y0, x1, y1 = fitted(edges, self.fit)[0].tolist()
        return x0, y0, x1, y1

    def _pixels(self, frame: Tensor, window: Window) -> Tensor:
        """The window's pixels in an image of the input's size: uint8 [3, side, side]."""
        left, top, right, bottom = window
        fill = torch.tensor(self.fill, dtype=frame.dtype)[:, None, None]
        filled = fill.expand(3, self.side, self.side).clone()
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(right, frame.shape[2]), min(bottom, frame.shape[1])
        if x0 >= x1 or y0 >= y1:  # a crop beside the image, of the zoomed-out canvas alone
            return filled
        a, c = (round((x - left) * self.side / (right - left)) for x in (x0, x1))
        b, d = (round((y - top) * self.side / (bottom - top)) for y in (y0, y1))
        c, d = max(c, a + 1), max(d, b + 1)
        pixels: Tensor = F.resize_image(frame[:, y0:y1, x0:x1], [d - b, c - a])
        if self.photometric:
            pixels = self.colors(tv_tensors.Image(pixels)).as_subclass(Tensor)
        if pixels.shape[1:] == filled.shape[1:]:
            return pixels
        filled[:, b:d, a:c] = pixels
        return filled
