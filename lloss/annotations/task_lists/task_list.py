"""Images to label, with what a network found on each: what every format is written from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lloss.annotations.boxes import Edges
from lloss.annotations.label_types import DECIMALS, ObjectLabel, PersonLabel
from lloss.annotations.person_record import BOX_SCALE
from lloss.annotations.prediction import ClassMask, Prediction
from lloss.images.crop_box import CropBox
from lloss.images.decode import Raw

PERSON = "person"
"""The class of all persons in formats that give joints to an object of a class."""

_BACKGROUND = "background"
"""The name, underscores aside, of a class of pixels that shows no object; its mask is left out."""


@dataclass(frozen=True, slots=True)
class ListedPick:
    """An image, or a person on it, that was selected."""

    id: str  # the pool's
    rank: int  # from 1
    score: float  # that it was selected by
    region: CropBox | None = None  # the square of the image that the pool has, of a person
    prediction: Prediction | None = None  # in pixels of the whole image; sure objects alone


@dataclass(frozen=True, slots=True)
class TaskImage:
    """An image of the list."""

    name: str  # in the list: a relative path, or an absolute one where the pool has those
    source: str  # what opens it: an absolute path of this machine or a URL; "" for neither
    size: tuple[int, int]  # height and width of the upright image
    picks: tuple[ListedPick, ...]  # several only where they are persons of one image
    read: Callable[[], Raw]  # its bytes or pixels


@dataclass(frozen=True, slots=True)
class TaskList:
    """The list.

    ``images`` can be iterated over once: they are read and predicted as a writer needs them.
    """

    images: Iterable[TaskImage]
    task: str  # the model's, such as "detection"; "" where no model is known
    classes: tuple[str, ...]  # in the order of the network's outputs; joints of pose
    version: str  # names the model; "" where none is known


class MarkedClass(NamedTuple):
    """The class of a whole image."""

    name: str
    score: float


class MarkedBox(NamedTuple):
    """An object."""

    name: str
    score: float
    edges: Edges  # rounded


class MarkedJoint(NamedTuple):
    """A joint that was found."""

    name: str
    score: float
    x: float  # the centre of the first pixel being 0.5
    y: float


class MarkedPerson(NamedTuple):
    """A person: one that was selected, or whose joints were found."""

    box: tuple[float, float, float, float]  # x, y, width, height
    score: float | None  # None if no network looked
    joints: tuple[MarkedJoint, ...]


class MarkedPixels(NamedTuple):
    """All pixels of a class."""

    name: str
    score: float
    pixels: NDArray[np.bool_]  # [H, W]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        rows, columns = (np.flatnonzero(self.pixels.any(axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


Mark = MarkedClass | MarkedBox | MarkedPerson | MarkedPixels


def marks_of(pick: ListedPick) -> Iterator[Mark]:
    """What a list marks on the image of a pick."""
    label = pick.prediction.label if pick.prediction else None
    scores = pick.prediction.scores.tolist() if pick.prediction else []
    if isinstance(label, str):
        yield MarkedClass(label, scores[0])
    elif isinstance(label, ObjectLabel):
        for name, score, box in zip(label.names, scores, label.boxes.tolist()):
            x0, y0, x1, y1 = map(in_pixels, box)
            yield MarkedBox(name, score, (x0, y0, x1, y1))
    elif isinstance(label, ClassMask):
        for number, (name, score) in enumerate(zip(label.names, scores)):
            pixels = label.pixels == number
            if name.strip("_").lower() != _BACKGROUND and pixels.any():
                yield MarkedPixels(name, score, pixels)
    elif box := _person_box(pick, label):
        yield MarkedPerson(box, _confidence(pick), _joints(label, scores))


def shows_nothing(pick: ListedPick) -> bool:
    """Whether nothing is marked, or a person without a joint."""
    return all(isinstance(mark, MarkedPerson) and not mark.joints for mark in marks_of(pick))


def _confidence(pick: ListedPick) -> float | None:
    return pick.prediction.confidence if pick.prediction else None


def _joints(label: PersonLabel | None, scores: list[float]) -> tuple[MarkedJoint, ...]:
    if label is None:
        return ()
    rows = zip(label.names, scores, label.joints.tolist(), label.annotated.tolist())
    return tuple(MarkedJoint(name, score, x, y) for name, score, (x, y), found in rows if found)


def _person_box(
    pick: ListedPick, label: PersonLabel | None
) -> tuple[float, float, float, float] | None:
    """The box from which a reader of persons finds the same square again.

    Of a person that the pool cuts out of the image it is that of the id if its numbers are a box;
    else it is in the middle of the square. Elsewhere it is around the joints that were found; None
    without any.
    """
    if pick.region is not None:
        with contextlib.suppress(ValueError):
            x, y, width, height = map(float, pick.id.rpartition("@")[2].split(","))
            return x, y, width, height
        side = pick.region.side / BOX_SCALE
        margin = (pick.region.side - side) / 2
        return pick.region.left + margin, pick.region.top + margin, side, side
    if label is None or not label.annotated.any():
        return None
    joints = label.joints[label.annotated]
    (left, top), (right, bottom) = joints.min(0).tolist(), joints.max(0).tolist()
    return left, top, max(right - left, 1.0), max(bottom - top, 1.0)


def in_pixels(value: float) -> float:
    """A coordinate with the decimals that files keep."""
    return round(value, DECIMALS)


def in_shares(score: float) -> float:
    """A score or a share with the decimals that files keep."""
    return round(score, 6)


def run_lengths(values: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of equal values [N], of False first; the first one may be 0."""
    if not len(values):
        return []
    bounds = np.flatnonzero(values[1:] != values[:-1]) + 1
    runs = np.diff(np.concatenate([[0], bounds, [len(values)]])).tolist()
    return [0, *runs] if values[0] else runs
