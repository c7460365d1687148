"""The labels of an image: objects or a person's joints."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lloss.images.crop_box import CropBox

DECIMALS = 3  # Of a pixel, that JSON keeps
NO_CLASS = 255  # A mask's pixel that is of no class


@dataclass(frozen=True, slots=True, eq=False)
class ObjectLabel:
    """The objects of an image, possibly none.

    Boxes are x0, y0, x1, y1 in pixels of the upright image, as edges (a box over the first pixel
    alone is 0, 0, 1, 1).
    """

    names: tuple[str, ...]  # the class of each
    boxes: NDArray[np.float32]  # [M, 4]
    difficult: NDArray[np.bool_]  # [M]: neither counts nor hurts when detections are judged
    # [M]: a region of many objects; judged like a difficult one, not trained on
    crowd: NDArray[np.bool_]
    # Height and width that the boxes were drawn on; None where the format lacks it
    size: tuple[int, int] | None = None
    # Whether boxes are shares of the image's width and height, until its size is known
    shares: bool = False
    marks: ClassVar[str] = "object"
    """What the label marks, in words."""

    @property
    def empty(self) -> bool:
        """Whether nothing is marked."""
        return not self.names

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; :mod:`.lloss_json` reads them."""
        return {
            "names": list(self.names),
            "boxes": [[round(float(x), DECIMALS) for x in box] for box in self.boxes],
            "difficult": self.difficult.tolist(),
            "crowd": self.crowd.tolist(),
            "size": list(self.size) if self.size else None,
        }

    def __str__(self) -> str:
        return json.dumps(self.as_dict(), ensure_ascii=False)


@dataclass(frozen=True, slots=True, eq=False)
class PersonLabel:
    """The joints of one person.

    Joints are x, y in pixels of the upright image, the centre of the first pixel being 0.5, 0.5; of
    a joint that is not annotated anything finite.
    """

    image: str  # the id of the image that shows the person
    region: CropBox | None  # the square that the network is to see; None for the whole image
    names: tuple[str, ...]  # of the joints, the same for all labels of a set
    joints: NDArray[np.float32]  # [J, 2]
    annotated: NDArray[np.bool_]  # [J]
    # The head's size in pixels that PCKh divides by (0.6 of the head box's diagonal, or an
    # estimate of it); NaN where it is not known
    head: float = math.nan

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; :mod:`.lloss_json` reads them."""
        return {
            "image": self.image,
            "region": list(self.region.as_tuple()) if self.region else None,
            "names": list(self.names),
            "joints": [[round(float(x), DECIMALS) for x in joint] for joint in self.joints],
            "annotated": self.annotated.tolist(),
            "head": round(self.head, DECIMALS) if math.isfinite(self.head) else None,
        }

    def __str__(self) -> str:
        return json.dumps(self.as_dict(), ensure_ascii=False)
