"""The share of labeled images that the network never sees, because of how they are fitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.images.decode import Frame, ImageSpec

_LEAST = 0.005
"""Share of the pixels from which on it is reported: below, rounding cuts a row or two."""


@dataclass
class CroppedShare:
    """Counts the pixels of images, and the objects or joints on them, that the input cuts off."""

    spec: ImageSpec
    unit: str = ""  # what is labeled on an image, in the plural; "" for the image as a whole
    # Pixels, seen pixels, hidden and all objects of each image; several threads append
    images: list[tuple[float, float, int, int]] = field(default_factory=list, repr=False)

    def add(self, size: tuple[int, int], points: NDArray[Any] | None = None) -> None:
        """Count an image of this height and width.

        ``points`` are x, y of the centre of each object, or of each joint, in its pixels: [M, 2].
        """
        frame = Frame.of(size, self.spec)
        scale, offset = np.array(frame.scale), np.array(frame.offset)
        low = np.maximum(-offset / scale, 0)
        sides = np.array([self.spec.width, self.spec.height])
        high = np.minimum((sides - offset) / scale, size[::-1])
        seen = float(np.maximum(high - low, 0).prod())
        points = np.empty((0, 2)) if points is None else points.reshape(-1, 2)
        hidden = len(points) - int(((points >= low) & (points <= high)).all(1).sum())
        self.images.append((size[0] * size[1], seen, hidden, len(points)))

    def as_dict(self) -> dict[str, Any]:
        """Share of the pixels, and counts of objects or joints, for JSON; empty without any."""
        share, hidden, total = self._totals()
        if share < _LEAST and not hidden:
            return {}
        counts = {self.unit: {"cut": hidden, "of": total}} if self.unit else {}
        return {"fit": self.spec.fit, "pixels": round(share, 4), **counts}

    def line(self, what: str, effect: str) -> str:
        """One line for the user; "" where nothing was cut off.

        The images are such as ``what``, ``held-out``; being cut off has the ``effect``.
        """
        share, hidden, total = self._totals()
        if share < _LEAST and not hidden:
            return ""
        images = f"{len(self.images):,} {what} images"
        objects = f"{hidden:,} of {total:,} {self.unit}"
        if share < _LEAST:
            return f"{objects} are outside of what the network sees of the {images}; that {effect}"
        also = f" and {objects}" if total else ""
        fits = "pad or stretch" if self.spec.fit == "crop" else "stretch"
        less = f" at share {self.spec.share:.3g}" if self.spec.share < 1 else ""
        return (
            f"fit {self.spec.fit}{less} cuts off {share:.0%} of the pixels{also} of the {images}; "
            f"what is cut off {effect} (--fit {fits} keeps all of an image)"
        )

    def _totals(self) -> tuple[float, int, int]:
        """Share of the pixels, objects that are cut off, objects."""
        whole, seen, hidden, total = map(sum, zip((0, 0, 0, 0), *self.images))
        return (1 - seen / whole if whole else 0.0), int(hidden), int(total)
