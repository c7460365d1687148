"""Squares cut out of images, for networks that look at one object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lloss.images.decode import Pixels


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square of whole pixels, which may reach over the image's edges."""

    left: int
    top: int
    side: int

    @classmethod
    def around(cls, x: float, y: float, side: float) -> CropBox:
        """Round the square with this centre to whole pixels."""
        whole = max(1, round(side))
        return cls(round(x - whole / 2), round(y - whole / 2), whole)

    def grown(self, factor: float) -> CropBox:
        """Scale the side and keep the centre."""
        half = self.side / 2
        return CropBox.around(self.left + half, self.top + half, self.side * factor)

    def as_tuple(self) -> tuple[int, int, int]:
        """Left, top, side."""
        return self.left, self.top, self.side

    def cut(self, pixels: Pixels) -> Pixels:
        """Cut it out of ``uint8 [H, W, 3]``: ``uint8 [side, side, 3]``, black outside."""
        cut = np.zeros((self.side, self.side, 3), np.uint8)
        top, left = max(self.top, 0), max(self.left, 0)
        inside = pixels[top : max(self.top + self.side, 0), left : max(self.left + self.side, 0)]
        height, width, _ = inside.shape
        cut[top - self.top :, left - self.left :][:height, :width] = inside
        return cut
