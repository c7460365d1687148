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
from lloss.modeling.meter import Meter, unknown_classes_note
from lloss.statistics.confidence_intervals import Floats

UNKNOWN = 255  # A target's pixel of a class that the network does not have

Mask: TypeAlias = NDArray[np.uint8]  # [H, W]


@dataclass(frozen=True, slots=True, eq=False)
class WholeMask:
    """All pixels of an image, and which pixel of the input shows each."""

    packed: bytes  # the values, uint8 [H, W], deflated
    # Of the input, int [H]; -1 where it does not show that row of the image
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]  # of the input, int [W]
    # Pixels of the input that a pixel of the image takes, so that all images count alike
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class MaskTarget:
    """The classes of the pixels of one input."""

    mask: Mask  # uint8 [H, W]: a class's index plus 1, 0 for none, `UNKNOWN`
    whole: WholeMask | None = None  # the image's own pixels; None where the input has them all

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
            axes.append(np.where((place >= 0) & (place < count), place, -1))
        return cls(mask, WholeMask(zlib.compress(values.tobytes(), 1), axes[0], axes[1], weight))

    def judged(self, guess: NDArray[Any], missing: int) -> tuple[Mask, NDArray[Any], float]:
        """Return each pixel's value, its guess, and how much each pair weighs.

        ``guess`` is that of each pixel of the input, ``missing`` that of pixels that it cuts off.
        """
        if self.whole is None:
            return self.mask, guess, 1.0
        rows, columns = self.whole.rows, self.whole.columns
        values = np.frombuffer(zlib.decompress(self.whole.packed), np.uint8)
        padded = np.pad(guess, ((0, 1), (0, 1)), constant_values=missing)  # at -1
        return values.reshape(len(rows), -1), padded[np.ix_(rows, columns)], self.whole.weight


class MeanIoU(Meter):
    """Intersection over union of each class's pixels in all images.

    Pixels of no class do not count, pixels that the input cuts off count as missed.

    Args:
        classes: of the network.
        unknown: classes of the masks that the network does not have: their IoU is 0.
    """

    def __init__(self, classes: Sequence[str], unknown: Sequence[str]) -> None:
        self.classes, self.unknown = tuple(classes), tuple(unknown)
        self._both: list[NDArray[np.float64]] = []  # intersection of each image, by class
        self._union: list[NDArray[np.float64]] = []

    def update(self, output: Tensor, targets: Sequence[MaskTarget]) -> None:
        self.images += len(targets)
        count = len(self.classes)
        for guess, target in zip(output.argmax(1).cpu().numpy(), targets):
            values, guesses, weight = target.judged(guess, missing=count)
            true = np.minimum(values.astype(np.int64) - 1, count)  # the last: unknown
            pairs = true[true >= 0] * (count + 1) + guesses[true >= 0]
            counts = weight * np.bincount(pairs, minlength=(count + 1) ** 2)
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

    def support(self) -> dict[str, int]:
        """Images with a pixel of the class, true or guessed."""
        shows = (self._table(self._union) > 0).sum(0).tolist()
        each = {f"IoU {name}": images for name, images in zip(self.classes, shows) if images}
        return {"miou": self.images, **each}

    def missed(self) -> list[str]:
        return unknown_classes_note(self.unknown, self.classes, "IoU 0")

    def _table(self, rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array(rows).reshape(len(rows), len(self.classes))
