"""Squares cut out of images: what a network that looks at one object sees of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lloss.images.decode import Pixels


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square of whole pixels, which may reach over the image's edges.

    Attributes:
        left: column of its first pixel.
        top: row of its first pixel.
        side: in pixels, at least 1.
    """

    left: int
    top: int
    side: int

    @classmethod
    def around(cls, x: float, y: float, side: float) -> CropBox:
        """The square with this centre, rounded to whole pixels."""
        whole = max(1, round(side))
        return cls(round(x - whole / 2), round(y - whole / 2), whole)

    def grown(self, factor: float) -> CropBox:
        """The square with the same centre and ``factor`` times its side."""
        half = self.side / 2
        return CropBox.around(self.left + half, self.top + half, self.side * factor)

    def as_tuple(self) -> tuple[int, int, int]:
        """Left, top, side."""
        return self.left, self.top, self.side

    def cut(self, pixels: Pixels) -> Pixels:
        """The square of an image ``uint8 [H, W, 3]``: ``uint8 [side, side, 3]``, black outside."""
        height, width, _ = pixels.shape
        cut = np.zeros((self.side, self.side, 3), np.uint8)
        rows = slice(max(self.top, 0), min(self.top + self.side, height))
        columns = slice(max(self.left, 0), min(self.left + self.side, width))
        if rows.start < rows.stop and columns.start < columns.stop:
            inside = pixels[rows, columns]
            top, left = rows.start - self.top, columns.start - self.left
            cut[top : top + len(inside), left : left + inside.shape[1]] = inside
        return cut
