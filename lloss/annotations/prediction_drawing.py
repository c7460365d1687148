"""What a network found, as shapes to draw over the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations.joint_names import skeleton
from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.prediction import Prediction
from lloss.images.thumbnail import Shape


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
