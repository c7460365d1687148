"""Mean intersection over union of masks, of whole images: what the input cuts off is missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lloss.images import Frame, ImageSpec
from lloss.intervals import Floats, Interval, bootstrap
from lloss.tasks import Meter, of_unknown_classes

UNKNOWN = 255
"""A target's pixel of a class that the network does not have."""

Mask: TypeAlias = NDArray[np.uint8]  # [H, W]


@dataclass(frozen=True, slots=True, eq=False)
class MaskTarget:
    """The classes of the pixels of one input.

    Attributes:
        mask: uint8 [H, W]: a class's index plus 1, 0 for none, :data:`UNKNOWN`.
        cut: of each of these values, how much the input does not show of the image, in pixels of
            the input: float64 [256].
    """

    mask: Mask
    cut: NDArray[np.float64]

    @classmethod
    def of(cls, values: Mask, spec: ImageSpec) -> MaskTarget:
        """Of the values of all pixels of an image, uint8 [H, W]; the nearest pixel counts."""
        frame = Frame.of(values.shape, spec)
        seen = []
        for axis, count in ((1, spec.height), (0, spec.width)):
            middles = np.arange(values.shape[1 - axis]) + 0.5
            places = middles * frame.scale[axis] + frame.offset[axis]
            seen.append((places >= 0) & (places < count))
        hidden = (_counts(values) - _counts(values[np.ix_(*seen)])).astype(np.float64)
        hidden *= frame.scale[0] * frame.scale[1]
        return cls(frame.carried(values, spec), hidden)


def _counts(values: Mask) -> NDArray[np.int64]:
    return np.bincount(values.ravel(), minlength=UNKNOWN + 1)


class MeanIoU(Meter):
    """Intersection over union of each class's pixels in all images.

    Pixels of no class count for nobody, pixels that the input cuts off as missed.

    Args:
        classes: of the network.
        unknown: classes of the masks that are none of the network's: their IoU is 0.
    """

    def __init__(self, classes: Sequence[str], unknown: Sequence[str]) -> None:
        self.classes, self.unknown = tuple(classes), tuple(unknown)
        self.both: list[NDArray[np.float64]] = []  # of each image, by class: the intersection,
        self.union: list[NDArray[np.float64]] = []

    def update(self, output: Tensor, targets: Sequence[MaskTarget], mirror: Any = None) -> None:
        """Count pixels by true and by guessed class."""
        count = len(self.classes)
        for guess, target in zip(output.argmax(1).cpu().numpy(), targets):
            true = np.minimum(target.mask.astype(np.int64) - 1, count)  # the last: unknown
            pairs = true[true >= 0] * count + guess[true >= 0]
            counts = np.bincount(pairs, minlength=(count + 1) * count).reshape(count + 1, count)
            both = np.diag(counts).astype(np.float64)
            self.both.append(both)
            cut = target.cut[1 : count + 1]
            self.union.append(counts.sum(0) + counts[:-1].sum(1) - both + cut)

    def figures(self) -> dict[str, float]:
        """``miou``, the mean over the classes of which there is a pixel, then each."""
        figures = self._resampled(np.ones((1, len(self.both))))
        return {name: float(value[0]) for name, value in figures.items()}

    def _resampled(self, weights: Floats) -> dict[str, Floats]:
        union = weights @ self._column(self.union)
        with np.errstate(invalid="ignore"):
            shares = weights @ self._column(self.both) / union
        each = {f"IoU {n}": s for n, s in zip(self.classes, shares.T) if not np.isnan(s).all()}
        each.update({f"IoU {name}": np.zeros(len(weights)) for name in self.unknown})
        known = (union > 0).sum(1) + len(self.unknown)
        with np.errstate(invalid="ignore"):
            mean = np.where(union > 0, shares, 0).sum(1) / known
        return {"miou": mean, **each}

    def _column(self, parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array(parts).reshape(len(parts), len(self.classes))

    def intervals(self) -> dict[str, Interval]:
        """Of each figure, by the bootstrap over images."""
        shows = (self._column(self.union) > 0).sum(0).tolist()
        support = {"miou": len(self.both)}
        support |= {f"IoU {name}": images for name, images in zip(self.classes, shows) if images}
        return bootstrap(len(self.both), self._resampled, support)

    def missed(self) -> list[str]:
        """Classes that the network does not have."""
        return of_unknown_classes(self.unknown, self.classes, "IoU 0")
