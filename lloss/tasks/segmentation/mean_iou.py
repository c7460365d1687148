"""Mean intersection over union of masks, of whole images: what the input cuts off is missed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lloss.images.decode import Frame, ImageSpec
from lloss.modeling.objective import Meter
from lloss.statistics.confidence_intervals import Floats

UNKNOWN = 255  # A target's pixel of a class that the network does not have

Mask: TypeAlias = NDArray[np.uint8]  # [H, W]


@dataclass(frozen=True, slots=True, eq=False)
class MaskTarget:
    """The classes of the pixels of one input, and of all pixels of its image."""

    mask: Mask  # uint8 [H, W]: a class's index plus 1, 0 for none, `UNKNOWN`
    packed: bytes = b""  # the image's, deflated; b"" where the input has them all
    # Of the input, for each of the image's; -1 where it does not show that one
    rows: Sequence[int] = ()
    columns: Sequence[int] = ()
    # Pixels of the input that a pixel of the image takes, so that all images count alike
    weight: float = 1.0

    @classmethod
    def of(cls, values: Mask, spec: ImageSpec) -> MaskTarget:
        """Make it of all pixels of an image, uint8 [H, W]; the input has the nearest pixel's."""
        frame = Frame.of(values.shape, spec)
        mask, weight = frame.resampled(values, spec), frame.scale[0] * frame.scale[1]
        if values.shape == mask.shape and weight == 1:
            return cls(mask)
        axes = []
        for axis, count in ((1, spec.height), (0, spec.width)):
            centres = np.arange(values.shape[1 - axis]) + 0.5
            place = np.floor(centres * frame.scale[axis] + frame.offset[axis]).astype(np.int64)
            axes.append(np.where((place >= 0) & (place < count), place, -1).tolist())
        return cls(mask, zlib.compress(values.tobytes(), 1), axes[0], axes[1], weight)

    def judged(self, guess: NDArray[Any], missing: int) -> tuple[Mask, NDArray[Any]]:
        """Return each pixel's value and guess; ``missing`` is that of pixels that are cut off."""
        if not self.packed:
            return self.mask, guess
        values = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        padded = np.pad(guess, ((0, 1), (0, 1)), constant_values=missing)  # at -1
        return values.reshape(len(self.rows), -1), padded[np.ix_(self.rows, self.columns)]


class MeanIoU(Meter):
    """Intersection over union of each class's pixels in all images.

    Pixels of no class do not count, pixels that the input cuts off count as missed. Classes that
    the network does not have, ``unknown``, have an IoU of 0.
    """

    def __init__(self, classes: Sequence[str], unknown: Sequence[str]) -> None:
        self.classes, self.unknown = tuple(classes), tuple(unknown)
        self._both: list[NDArray[np.float64]] = []  # intersection of each image, by class
        self._union: list[NDArray[np.float64]] = []

    def update(self, output: Tensor, targets: Sequence[MaskTarget]) -> None:
        self.images += len(targets)
        count = len(self.classes)
        for guess, target in zip(output.argmax(1).cpu().numpy(), targets):
            values, guesses = target.judged(guess, missing=count)
            true = np.minimum(values.astype(np.int64) - 1, count)  # the last: unknown
            pairs = true[true >= 0] * (count + 1) + guesses[true >= 0]
            counts = target.weight * np.bincount(pairs, minlength=(count + 1) ** 2)
            counts = counts.reshape(count + 1, count + 1)
            both = np.diag(counts)[:count]
            self._both.append(both)
            self._union.append(counts[:, :count].sum(0) + counts[:count].sum(1) - both)

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """``miou``, the mean over the classes of which there is a pixel, then each."""
        union = weights @ self._table(self._union)
        with np.errstate(invalid="ignore"):
            shares = weights @ self._table(self._both) / union
        each = {f"IoU {n}": s for n, s in zip(self.classes, shares.T) if not np.isnan(s).all()}
        each.update({f"IoU {name}": np.zeros(len(weights)) for name in self.unknown})
        counted = (union > 0).sum(1) + len(self.unknown)
        with np.errstate(invalid="ignore"):
            mean = np.where(union > 0, shares, 0).sum(1) / counted
        return {"miou": mean, **each}

    def _table(self, rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array(rows).reshape(len(rows), len(self.classes))
