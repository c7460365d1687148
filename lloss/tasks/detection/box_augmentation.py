"""SSD's random change of training images (Liu et al. 2016, section 2.2, "Data augmentation").

Draws are those of torchvision's transforms. They decide on a window, which may reach over the
image's edges; only then pixels are touched, once: what the window shows is resized into place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lloss.images.decode import Fit
from lloss.tasks.detection.box_targets import Objects
from lloss.tasks.detection.random_crop import IoUCrop, fitted
from lloss.tasks.train_settings import TrainSettings

KINDS = ("none", "flip", "crop", "flip-crop", "ssd")

STORED_SCALE = 1.7
"""Training images are kept so much larger than the input: a crop of them still has its detail."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle in whole pixels of an image, perhaps larger than it."""

    left: int
    top: int
    width: int
    height: int

    def fitted(self, fit: Fit) -> Window:
        """What of it an input of equal sides shows: a square, or all where the fit stretches."""
        right, bottom = self.left + self.width, self.top + self.height
        (edges,) = fitted(torch.tensor([[self.left, self.top, right, bottom]]), fit).tolist()
        left, top, right, bottom = edges
        return Window(left, top, right - left, bottom - top)


@dataclass(frozen=True)
class SsdAugmentation:
    """Change images by torch's global generator.

    Attributes:
        side: of the input, in pixels.
        fit: how an image's rectangle comes to the input's square.
        fill: the colour around an image that is zoomed out.
        crop: cut out a part that overlaps an object by at least a drawn IoU.
        flip: mirror half of them.
        photometric: change the colours, and zoom out half of the images.
    """

    side: int
    fit: Fit = "stretch"
    fill: tuple[int, int, int] = (0, 0, 0)
    crop: bool = False
    flip: bool = False
    photometric: bool = False
    colors: v2.Transform = field(default_factory=v2.RandomPhotometricDistort, repr=False)
    zoom: v2.RandomZoomOut = field(default_factory=v2.RandomZoomOut, repr=False)
    cropping: IoUCrop = field(default_factory=IoUCrop, repr=False)

    @classmethod
    def of(cls, settings: TrainSettings) -> SsdAugmentation:
        """By the setting ``augment``, one of :data:`KINDS`: ``ssd`` is all of them."""
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

        All draws follow from ``generator``; torch's global one is given back as it was.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        changed = images.new_empty(len(images), self.side, self.side, 3)
        moved = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for image, objects, out in zip(images, targets, changed):
                pixels, objects = self(image, objects)
                out.copy_(pixels)
                moved.append(objects)
        return changed, moved

    def __call__(self, image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
        """Change one image, uint8 [h, w, 3] with its padding, to uint8 [side, side, 3]."""
        x0, y0, x1, y1 = objects.frame
        frame = image[y0:y1, x0:x1].permute(2, 0, 1)
        objects = objects.moved((1, 1), (-x0, -y0), x1 - x0, y1 - y0)
        window = self._window(objects, x1 - x0, y1 - y0).fitted(self.fit)
        scale = self.side / window.width, self.side / window.height
        shown = objects.within(
            window.left, window.top, window.left + window.width, window.top + window.height
        )
        offset = -window.left * scale[0], -window.top * scale[1]
        shown = shown.moved(scale, offset, self.side, self.side)
        pixels = self._show(frame, window)
        if self.flip and torch.rand(()) < 0.5:
            pixels, shown = pixels.flip(2), shown.mirrored(self.side)
        return pixels.permute(1, 2, 0), shown

    def _window(self, objects: Objects, width: int, height: int) -> Window:
        """Zoom out, then crop."""
        left, top = 0, 0
        if self.photometric and torch.rand(()) < self.zoom.p:
            canvas = tv_tensors.BoundingBoxes(
                objects.boxes, format="XYXY", canvas_size=(height, width)
            )
            before_x, before_y, after_x, after_y = self.zoom.make_params([canvas])["padding"]
            left, top = -before_x, -before_y
            width, height = before_x + width + after_x, before_y + height + after_y
        if self.crop and len(objects):
            shifted = objects.boxes - torch.tensor([left, top, left, top])
            canvas = tv_tensors.BoundingBoxes(shifted, format="XYXY", canvas_size=(height, width))
            cut = self.cropping.make_params([canvas], self.fit)
            if cut:
                left, top = left + cut["left"], top + cut["top"]
                width, height = cut["width"], cut["height"]
        return Window(left, top, width, height)

    def _show(self, frame: Tensor, window: Window) -> Tensor:
        """The window's pixels in an image of the input's size: uint8 [3, side, side]."""
        _, height, width = frame.shape
        x0, y0 = max(window.left, 0), max(window.top, 0)
        x1 = min(window.left + window.width, width)
        y1 = min(window.top + window.height, height)
        if x0 >= x1 or y0 >= y1:  # a crop beside the image, of the zoomed-out canvas alone
            return self._filled(frame)
        left, right = (round((x - window.left) * self.side / window.width) for x in (x0, x1))
        top, bottom = (round((y - window.top) * self.side / window.height) for y in (y0, y1))
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        pixels: Tensor = F.resize_image(frame[:, y0:y1, x0:x1], [bottom - top, right - left])
        if self.photometric:
            pixels = self.colors(tv_tensors.Image(pixels)).as_subclass(Tensor)
        if pixels.shape[1:] == (self.side, self.side):
            return pixels
        filled = self._filled(frame)
        filled[:, top:bottom, left:right] = pixels
        return filled

    def _filled(self, frame: Tensor) -> Tensor:
        fill = torch.tensor(self.fill, dtype=frame.dtype)[:, None, None]
        return fill.expand(3, self.side, self.side).clone()
