"""Random views of a person: scaled, turned, mirrored, tinted; one resampling an image.

The stored image is larger than the network's input, so that what a view shows beyond the plain cut
is there. Matrices map pixels of the input to pixels of the stored image; pixel coordinates have the
centre of the first pixel at 0.5, 0.5, as Pillow's affine transform has.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from lloss.annotations.joint_names import without_mirror
from lloss.images.decode import Pixels
from lloss.tasks.pose.joint_targets import PersonTarget, mirror_order

STORED_SCALE = 1.75
"""Side of a stored image over that of the input: a person at 0.75 of its size shows 1.33 times as
much, turned by 30° up to 1.82; only the outermost corners of the rarest views lack pixels."""

SCALE = 0.25  # A person is shown at 1 ± so much of its size (Newell et al. 2016, section 3.1)
DEGREES = 30.0  # A person is turned by at most so much either way (the same section)
TURNED = 0.6  # Share of the views that are turned at all, as in the authors' code
TINT = 0.2  # Each colour is multiplied by 1 ± so much


@dataclass(frozen=True, slots=True)
class View:
    """How one input is seen."""

    zoom: float = 1.0  # above 1 the person is larger than in the plain cut
    degrees: float = 0.0  # rotation of the person, clockwise to the viewer
    mirrored: bool = False  # left and right change places
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factor of red, green and blue

    def matrix(self, size: int, stored: int) -> tuple[float, float, float, float, float, float]:
        """a, b, c, d, e, f: the pixel (x, y) of the input is (ax + by + c, dx + ey + f) stored."""
        angle = math.radians(self.degrees)
        cos, sin = math.cos(angle) / self.zoom, math.sin(angle) / self.zoom
        a, b, d, e = cos, sin, -sin, cos  # turning back
        if self.mirrored:
            a, d = -a, -d
        middle, half = stored / 2, size / 2
        return a, b, middle - (a + b) * half, d, e, middle - (d + e) * half


def draw_views(count: int, generator: Generator) -> list[View]:
    """Draw ``count`` random views, which depend on the generator alone."""
    draws = torch.rand(count, 7, generator=generator, dtype=torch.float64).tolist()
    return [
        View(
            zoom=1 + SCALE * (2 * zoom - 1),
            degrees=DEGREES * (2 * turn - 1) if turned < TURNED else 0.0,
            mirrored=mirrored < 0.5,
            tint=(_factor(red), _factor(green), _factor(blue)),
        )
        for zoom, turn, turned, mirrored, red, green, blue in draws
    ]


def _factor(draw: float) -> float:
    return 1 + TINT * (2 * draw - 1)


def show(
    images: Tensor, targets: Sequence[PersonTarget], views: Sequence[View], size: int
) -> tuple[Tensor, list[PersonTarget]]:
    """Show each stored image by its view: uint8 [B, size, size, 3], and targets in its pixels.

    A joint outside is not annotated.
    """
    seen = zip(images.numpy(), views)
    shown = np.stack([_warped(pixels, view, size) for pixels, view in seen])
    stored = images.shape[1]
    moved = [_moved(target, view, size, stored) for target, view in zip(targets, views)]
    return torch.from_numpy(shown), moved


def _warped(pixels: Pixels, view: View, size: int) -> Pixels:
    image = Image.fromarray(pixels).transform(
        (size, size),
        Image.Transform.AFFINE,
        view.matrix(size, len(pixels)),
        Image.Resampling.BILINEAR,
    )
    tinted = image.point([min(255, round(v * factor)) for factor in view.tint for v in range(256)])
    return np.asarray(tinted)


def _moved(target: PersonTarget, view: View, size: int, stored: int) -> PersonTarget:
    a, b, c, d, e, f = view.matrix(size, stored)
    forward = torch.tensor([[a, b], [d, e]], dtype=torch.float64).inverse()
    joints = ((target.joints - torch.tensor([c, f])).double() @ forward.T).float()
    order = list(mirror_order(target.names) if view.mirrored else range(len(joints)))
    shown = target.annotated & target.inside
    if view.mirrored:  # a left wrist is a right one there, and has no name without a partner
        shown &= ~torch.tensor(without_mirror(target.names))
    moved = dataclasses.replace(
        target,
        joints=joints[order],
        annotated=shown[order],
        size=size,
        pixel=(target.pixel[0] / view.zoom, target.pixel[1] / view.zoom),
    )
    return dataclasses.replace(moved, annotated=moved.annotated & moved.inside)
