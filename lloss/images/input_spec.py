"""The model's input: its size, how any image is fitted, and where its pixels are then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lloss.errors import SettingsError

Fit = Literal["crop", "pad", "stretch"]
Resample = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How any image becomes the model's input of ``height`` × ``width`` pixels.

    Attributes:
        fit: ``crop`` scales until the input is covered and cuts the middle out; ``pad`` scales
            until the image fits and fills the rest; ``stretch`` ignores the aspect ratio.
        white: the value that is white in grey images of more than 8 bits; 0 for 65535 of 16 bits.
        fill: the grey around the image by ``pad``, 0 (black) to 255.
        share: of the sides of the middle that ``crop`` would keep, how much it does; above 0 to 1.
        resample: Pillow's antialiased filter that scales.

    An image of the input's size is taken as it is, neither resampled nor cut.
    """

    height: int
    width: int
    fit: Fit = "crop"
    white: int = 0
    fill: int = 0
    share: float = 1.0
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 8192 and 1 <= self.width <= 8192):
            raise SettingsError(
                f"an input of {self.height}×{self.width} pixels: give 1 to 8192 each way"
            )
        if self.fit not in get_args(Fit):
            raise SettingsError(f"fit {self.fit!r}: choose one of {', '.join(get_args(Fit))}")
        if not 0 <= self.white < 2**31:
            raise SettingsError(f"white = {self.white}: give the largest value of a pixel, or 0")
        if not 0 <= self.fill <= 255:
            raise SettingsError(f"fill = {self.fill}: give a grey from 0 to 255")
        if not 0 < self.share <= 1 or (self.share < 1 and self.fit != "crop"):
            raise SettingsError(
                f"share = {self.share} with fit {self.fit!r}: give above 0 to 1, below 1 with crop"
            )
        if self.resample not in get_args(Resample):
            choices = ", ".join(get_args(Resample))
            raise SettingsError(f"resample {self.resample!r}: choose one of {choices}")


@dataclass(frozen=True, slots=True)
class Frame:
    """Position of an image in the model's input: ``input = image * scale + offset``, in pixels."""

    size: tuple[int, int]  # height and width of the upright image
    scale: tuple[float, float]  # along x and y
    offset: tuple[float, float]  # of its left and upper edge; negative where it is cut

    @classmethod
    def of(cls, size: tuple[int, int], spec: ImageSpec) -> Frame:
        """Where :func:`decode` puts an image of this height and width."""
        (height, width), scale = size, 1.0
        if spec.fit == "stretch" or size == (spec.height, spec.width):
            return cls(size, (spec.width / width, spec.height / height), (0.0, 0.0))
        if spec.fit == "crop":
            scale = 1 / (spec.share * min(width / spec.width, height / spec.height))
            offset = (spec.width - width * scale) / 2, (spec.height - height * scale) / 2
            return cls(size, (scale, scale), offset)
        left, top, inner = padded_inside((width, height), spec)
        return cls(size, (inner[0] / width, inner[1] / height), (left, top))

    def on_image(self, points: NDArray[Any]) -> NDArray[Any]:
        """Points of the input in pixels of the image; x, y, float [..., 2]."""
        on_image: NDArray[Any] = (points - np.array(self.offset)) / np.array(self.scale)
        return on_image

    def values_on_image(self, values: NDArray[Any], spec: ImageSpec, outside: int) -> NDArray[Any]:
        """Values of the input's pixels for the image's pixels ``[H, W]``, by the nearest one.

        ``values [h, w]`` cover the input in any resolution; pixels that the input cuts off get
        ``outside``.
        """
        at = [
            np.floor(
                ((np.arange(length) + 0.5) * self.scale[axis] + self.offset[axis]) * count / side
            ).astype(int)
            for length, axis, count, side in zip(
                self.size, (1, 0), values.shape, (spec.height, spec.width)
            )
        ]
        inside = [(index >= 0) & (index < count) for index, count in zip(at, values.shape)]
        carried = np.full(self.size, outside, values.dtype)
        carried[np.ix_(*inside)] = values[np.ix_(at[0][inside[0]], at[1][inside[1]])]
        return carried

    def resampled(self, values: NDArray[Any], spec: ImageSpec) -> NDArray[Any]:
        """Resample ``values [H, W]`` of the image's pixels for the input's, by the nearest one.

        The result is ``[spec.height, spec.width]``; 0 where the input shows nothing of the image.
        """
        at = [
            np.floor((np.arange(count) + 0.5 - self.offset[axis]) / self.scale[axis]).astype(int)
            for count, axis in ((spec.height, 1), (spec.width, 0))
        ]
        inside = [(index >= 0) & (index < size) for index, size in zip(at, self.size)]
        carried = np.zeros((spec.height, spec.width), values.dtype)
        carried[np.ix_(*inside)] = values[np.ix_(at[0][inside[0]], at[1][inside[1]])]
        return carried


def padded_inside(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int, tuple[int, int]]:
    """Left, top and (width, height) in the input of an image of this (width, height)."""
    scale = max(size[0] / spec.width, size[1] / spec.height)
    inner = (max(1, round(size[0] / scale)), max(1, round(size[1] / scale)))
    return (spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2, inner
