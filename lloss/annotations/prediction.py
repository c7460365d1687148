"""What a network found on an image: labels as a person gives them, each with a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lloss.annotations.joint_names import skeleton
from lloss.annotations.label_types import NO_CLASS, ObjectLabel, PersonLabel
from lloss.images.crop_box import CropBox
from lloss.images.input_spec import Frame, ImageSpec
from lloss.images.thumbnail import Shape

SURE_OBJECT = 0.4
"""Score from which an object counts as found, unless another is asked for."""

SURE_JOINT = 0.1
"""The same of a joint, whose score is its heatmap's peak: a Gaussian of a joint found for sure has
1. It is low, as the picks are the images that the network is least sure of."""

_LEAST_SIDE = 0.01  # Pixels; a box cut off to less at the image's edge is left out

Points = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class ClassMask:
    """The class of each pixel: its number in ``names``, or :data:`NO_CLASS`."""

    pixels: NDArray[np.uint8]  # [H, W]
    names: tuple[str, ...]  # of the network's classes, [C]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Each class's share of the pixels, [C]."""
        counts = np.bincount(self.pixels.ravel(), minlength=NO_CLASS + 1)
        return counts[: len(self.names)] / self.pixels.size


Found = str | ObjectLabel | PersonLabel | ClassMask


def found_objects(
    names: Sequence[str],
    boxes: ArrayLike,
    size: tuple[int, int] | None = None,
    shares: bool = False,
) -> ObjectLabel:
    """Make a label of objects that count, see :class:`ObjectLabel`."""
    no = np.zeros(len(names), np.bool_)
    edges = np.asarray(boxes, np.float32).reshape(-1, 4)
    return ObjectLabel(tuple(names), edges, no, no, size, shares)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a network found on one image.

    Its objective gives places as shares of the input's width and height, or a mask of the input;
    :meth:`on_image` makes them pixels of the upright image, :meth:`around_crop` of the image that
    the input was cut out of.

    Attributes:
        label: a class, objects, a person's joints, or each pixel's class.
        scores: 0 to 1, float32: of the class [1], each object [M], each joint [J], or each class
            of a mask [C], 0 where it has no pixel.
    """

    label: Found
    scores: NDArray[np.float32]

    @property
    def confidence(self) -> float:
        """Of the image as a whole, 0 to 1.

        Objects: the best one's. Joints: their mean. A mask: the mean over its pixels.
        """
        if isinstance(self.label, ObjectLabel):
            return float(self.scores.max(initial=0.0))
        if isinstance(self.label, ClassMask):
            shares = self.label.shares
            return float(shares @ self.scores / max(shares.sum(), 1e-9))
        return float(np.clip(self.scores, 0.0, 1.0).mean())

    @property
    def words(self) -> str:
        """What was found, such as ``12 RBC, 1 WBC``."""
        label = self.label
        if isinstance(label, str):
            return label
        if isinstance(label, PersonLabel):
            return f"{label.annotated.sum()} of {len(label.names)} joints"
        if isinstance(label, ClassMask):
            shares = sorted(zip(label.shares.tolist(), label.names), reverse=True)[:3]
            return ", ".join(f"{share:.0%} {name}" for share, name in shares if share)
        counts = Counter(sorted(label.names)).most_common()
        return ", ".join(f"{count} {name}" for name, count in counts) or "nothing"

    def at_least(self, score: float | None = None) -> Prediction:
        """Leave out objects and joints of a lower score; by default below what counts as found."""
        label = self.label
        if isinstance(label, ObjectLabel):
            return self._of_objects(self.scores >= (SURE_OBJECT if score is None else score))
        if isinstance(label, PersonLabel):
            sure = self.scores >= (SURE_JOINT if score is None else score)
            return replace(self, label=replace(label, annotated=label.annotated & sure))
        return self

    def on_image(self, size: tuple[int, int], spec: ImageSpec) -> Prediction:
        """From the input to pixels of an image of this height and width, which became the input.

        What is outside of the image is cut off.
        """
        frame = Frame.of(size, spec)
        return self._placed(
            lambda shares: frame.on_image(shares * np.array([spec.width, spec.height])),
            lambda pixels: frame.values_on_image(pixels, spec, NO_CLASS),
            size,
        )

    def around_crop(self, region: CropBox, size: tuple[int, int]) -> Prediction:
        """From pixels of a square to pixels of the image, of this height and width, around it."""
        corner = np.array([region.left, region.top])
        return self._placed(
            lambda points: points + corner, lambda pixels: _pasted(pixels, region, size), size
        )

    def _placed(
        self,
        place: Points,
        carry: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
        size: tuple[int, int],
    ) -> Prediction:
        label = self.label
        if isinstance(label, ClassMask):
            return replace(self, label=replace(label, pixels=carry(label.pixels)))
        if isinstance(label, PersonLabel):
            joints = place(label.joints).astype(np.float32)
            inside = ((joints >= 0) & (joints <= np.array(size[::-1]))).all(1)
            annotated = label.annotated & inside
            return replace(self, label=replace(label, joints=joints, annotated=annotated))
        if isinstance(label, ObjectLabel):
            corners = np.clip(place(label.boxes.reshape(-1, 2, 2)), 0, np.array(size[::-1]))
            boxes = corners.reshape(-1, 4).astype(np.float32)
            moved = replace(self, label=found_objects(label.names, boxes, size))
            sides = (boxes[:, 2:] - boxes[:, :2]).min(1)
            return moved._of_objects(sides >= _LEAST_SIDE)
        return self

    def _of_objects(self, kept: NDArray[np.bool_]) -> Prediction:
        label = self.label
        assert isinstance(label, ObjectLabel), "only objects can be left out"
        names = [name for name, keep in zip(label.names, kept.tolist()) if keep]
        objects = found_objects(names, label.boxes[kept], label.size, label.shares)
        return Prediction(objects, self.scores[kept])


def _pasted(pixels: NDArray[np.uint8], region: CropBox, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A square's pixels in an image of this height and width, of no class outside of it."""
    whole = np.full(size, NO_CLASS, np.uint8)
    top, left = max(region.top, 0), max(region.left, 0)
    part = pixels[top - region.top :, left - region.left :]
    part = part[: max(size[0] - top, 0), : max(size[1] - left, 0)]
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


def shapes_of(
    prediction: Prediction, size: tuple[int, int], classes: Sequence[str]
) -> tuple[Shape, ...]:
    """Boxes of objects, the surest on top, or lines between joints that were found.

    ``prediction`` is in pixels of an image of this height and width, ``classes`` are the network's.
    Of a class or a mask nothing is drawn.
    """
    label = prediction.label
    if isinstance(label, ObjectLabel):
        boxes = _shares(label.boxes.reshape(-1, 2, 2), size).reshape(-1, 4).tolist()
        order = np.argsort(prediction.scores, kind="stable").tolist()
        return tuple(
            Shape("box", tuple(boxes[at]), classes.index(label.names[at]), label.names[at])
            for at in order
        )
    if isinstance(label, PersonLabel):
        joints, found = _shares(label.joints, size).tolist(), label.annotated.tolist()
        return tuple(
            Shape("line", (*joints[a], *joints[b]), number)
            for number, (a, b) in enumerate(skeleton(label.names))
            if found[a] and found[b]
        )
    return ()


def _shares(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[Any]:
    shares: NDArray[Any] = points / np.array(size[::-1])
    return shares
