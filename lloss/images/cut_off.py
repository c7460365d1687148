"""What of labeled images the network never sees, because of how they come to its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.images.decode import Frame, ImageSpec

LEAST = 0.005
"""Share of the pixels from which on it is worth a line: below, rounding cuts a row or two."""


@dataclass
class CutOff:
    """Counts the pixels of images, and the objects or joints on them, that the input cuts off.

    Attributes:
        spec: of the network's input.
        unit: what is labeled on an image, in the plural; "" where it is the image as a whole.
        images: counted so far, from several threads.
    """

    spec: ImageSpec
    unit: str = ""
    images: list[tuple[float, float, int, int]] = field(default_factory=list, repr=False)

    def add(self, size: tuple[int, int], points: NDArray[Any] | None = None) -> None:
        """Count an image.

        Args:
            size: its height and width.
            points: x, y of the centre of each object, or of each joint, in its pixels: [M, 2].
        """
        low, high = shown(size, self.spec)
        sides = np.maximum(high - low, 0)
        hidden = 0
        if points is not None and len(points):
            hidden = len(points) - int(((points >= low) & (points <= high)).all(1).sum())
        of = 0 if points is None else len(points)
        self.images.append((size[0] * size[1], float(sides.prod()), hidden, of))

    def as_dict(self) -> dict[str, Any]:
        """Share of the pixels, and counts of objects or joints, for JSON; empty without any."""
        if not self._tells:
            return {}
        counts = {self.unit: {"cut": self._hidden, "of": self._of}} if self.unit else {}
        return {"fit": self.spec.fit, "pixels": round(self._share, 4), **counts}

    def line(self, what: str, effect: str) -> str:
        """One line for the user; "" where nothing was cut off.

        Args:
            what: the images are, such as ``held-out``.
            effect: of being cut off, such as ``counts as missed``.
        """
        if not self._tells:
            return ""
        images = f"{len(self.images):,} {what} images"
        hidden = f"{self._hidden:,} of {self._of:,} {self.unit}"
        if self._share < LEAST:
            return f"{hidden} lie outside of what the network sees of the {images}; that {effect}"
        also = f" and {hidden}" if self._of else ""
        fits = "pad or stretch" if self.spec.fit == "crop" else "stretch"
        return (
            f"fit {self.spec.fit} cuts off {self._share:.0%} of the pixels{also} of the {images}; "
            f"what is cut off {effect} (--fit {fits} keeps all of an image)"
        )

    @property
    def _share(self) -> float:
        whole, seen = (sum(image[axis] for image in self.images) for axis in (0, 1))
        return 1 - seen / whole if whole else 0.0

    @property
    def _hidden(self) -> int:
        return sum(image[2] for image in self.images)

    @property
    def _of(self) -> int:
        return sum(image[3] for image in self.images)

    @property
    def _tells(self) -> bool:
        return self._share >= LEAST or self._hidden > 0


def shown(
    size: tuple[int, int], spec: ImageSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of an image of this height and width that the input shows: x0, y0 and x1, y1."""
    frame = Frame.of(size, spec)
    scale, offset = np.array(frame.scale), np.array(frame.offset)
    low = np.maximum(-offset / scale, 0)
    high = np.minimum((np.array([spec.width, spec.height]) - offset) / scale, size[::-1])
    return low, high
