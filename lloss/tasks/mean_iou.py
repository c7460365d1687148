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
from lloss.statistics.confidence_intervals import Floats, Interval, bootstrap
from lloss.tasks.task import Meter, of_unknown_classes

UNKNOWN = 255
"""A target's pixel of a class that the network does not have."""

Mask: TypeAlias = NDArray[np.uint8]  # [H, W]


@dataclass(frozen=True, slots=True, eq=False)
class WholeMask:
    """All pixels of an image, and which pixel of the input shows each.

    An input is smaller than most images: what is thin or small may be on none of its pixels.

    Attributes:
        packed: the values, uint8 [H, W], deflated: a mask is far smaller so.
        rows: of the input, int [H]; -1 where it does not show that row of the image.
        columns: of the input, int [W].
        weight: pixels of the input that a pixel of the image takes, so that all images count alike.
    """

    packed: bytes
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    weight: float

    def shown(self, guess: NDArray[Any]) -> tuple[Mask, NDArray[Any]]:
        """The values of the pixels that the input shows, and what was guessed of each.

        Args:
            guess: of each pixel of the input.
        """
        shape = len(self.rows), len(self.columns)
        values = np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(shape)
        rows, columns = self.rows >= 0, self.columns >= 0
        seen = guess[np.ix_(self.rows[rows], self.columns[columns])]
        return values[np.ix_(rows, columns)], seen


@dataclass(frozen=True, slots=True, eq=False)
class MaskTarget:
    """The classes of the pixels of one input.

    Attributes:
        mask: uint8 [H, W]: a class's index plus 1, 0 for none, :data:`UNKNOWN`.
        cut: of each of these values, how much the input does not show of the image, in pixels of
            the input: float64 [256].
        whole: the image's own pixels; None where the input has them all.
    """

    mask: Mask
    cut: NDArray[np.float64]
    whole: WholeMask | None = None

    @classmethod
    def of(cls, values: Mask, spec: ImageSpec) -> MaskTarget:
        """Of the values of all pixels of an image, uint8 [H, W]; the input has the nearest's."""
        frame = Frame.of(values.shape, spec)
        places = []
        for axis, count in ((1, spec.height), (0, spec.width)):
            middles = np.arange(values.shape[1 - axis]) + 0.5
            place = np.floor(middles * frame.scale[axis] + frame.offset[axis]).astype(np.int64)
            places.append(np.where((place >= 0) & (place < count), place, -1))
        seen = [place >= 0 for place in places]
        weight = frame.scale[0] * frame.scale[1]
        hidden = (_counts(values) - _counts(values[np.ix_(*seen)])).astype(np.float64) * weight
        mask = frame.carried(values, spec)
        same = values.shape == mask.shape and weight == 1
        packed = b"" if same else zlib.compress(values.tobytes(), 1)
        return cls(mask, hidden, None if same else WholeMask(packed, places[0], places[1], weight))

    def judged(self, guess: NDArray[Any]) -> tuple[Mask, NDArray[Any], float]:
        """Values, the guess of each, and how much each pair weighs."""
        if self.whole is None:
            return self.mask, guess, 1.0
        return (*self.whole.shown(guess), self.whole.weight)


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
            values, seen, weight = target.judged(guess)
            true = np.minimum(values.astype(np.int64) - 1, count)  # the last: unknown
            pairs = true[true >= 0] * count + seen[true >= 0]
            counts = weight * np.bincount(pairs, minlength=(count + 1) * count)
            counts = counts.reshape(count + 1, count)
            both = np.diag(counts)
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
