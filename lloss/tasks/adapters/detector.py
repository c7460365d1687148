"""A detector of another library: what attaching a head needs to know of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lloss.errors import LabelError, SettingsError
from lloss.images.decode import Fit
from lloss.images.input_spec import Resample
from lloss.modeling.objective import Objective
from lloss.tasks.detection import image_scores
from lloss.tasks.detection.box_targets import ObjectBatch
from lloss.tasks.detection.image_scores import AnchorScores


class Truth(NamedTuple):
    """The objects of one image."""

    boxes: Tensor  # float32 [M, 4]: x0, y0, x1, y1 in pixels of the input
    labels: Tensor  # int64 [M], as the network numbers its classes


class Input(NamedTuple):
    """The images that a network was made for."""

    size: Any  # in pixels, a side or (height, width); 0 where the network does not say
    fit: Fit
    mean: Sequence[float]  # of the channels in 0..1
    std: Sequence[float]
    fill: int = 0  # grey of the padding, 0 to 255
    multiple: int = 1  # what height and width must be a multiple of
    share: float = 1.0  # of the middle that is shown
    resample: Resample = "bilinear"


class Detector(Objective):
    """Runs a detector up to its raw predictions, and computes its own loss image by image.

    Detectors divide their loss by a count of the whole batch; on a batch of one image it is that
    image's own. Subclasses call the library's own code.

    ``targets`` are an :class:`.ObjectBatch`, or a list with a dict of ``boxes``, float [M, 4] in
    pixels of the input, and ``labels``, int64 [M], as the network numbers its classes.

    Args:
        network: the detector; its classes and modules decide how the loss is computed.
        classes: names in the order of the network's outputs, without the background.

    Raises:
        SettingsError: the names do not fit the network, or its weights are not float32.
    """

    title: str  # of the detector, in messages
    summary_size = image_scores.SUMMARY_SIZE
    loss_unit = "the detector's own loss"
    own_trainer: str  # what trains the whole detector
    form = "a list with a dict of 'boxes' [M, 4] and 'labels' [M] for each image"  # of targets

    def __init__(self, network: nn.Module, classes: Sequence[str]) -> None:
        self.network: Any = network
        reduced = [p.dtype for p in network.parameters() if p.dtype != torch.float32]
        if reduced:
            kind = str(reduced[0]).removeprefix("torch.")
            raise SettingsError(f"{self.title}: its weights are {kind}; call network.float() first")
        self.classes, self.first = self.numbered(tuple(map(str, classes)))

    @abstractmethod
    def numbered(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """Return the classes without the background, and the network's number of the first."""

    @abstractmethod
    def input(self) -> Input:
        """Return what images the network takes where nothing else is said."""

    @abstractmethod
    def taps(self, image: tuple[int, int]) -> tuple[str, ...]:
        """Name the modules whose maps the detection heads read, of images of this H and W."""

    @abstractmethod
    def images(self, output: Any) -> int:
        """Count the images of a batch."""

    @abstractmethod
    def anchors(self, output: Any) -> AnchorScores:
        """Read the classification of each anchor."""

    def truths(self, output: Any, targets: Any) -> list[Truth]:
        """Read targets: a dict of ``boxes`` and ``labels`` for each image, as torchvision has them.

        Raises ``LabelError`` for others.
        """
        if not isinstance(targets, (list, tuple)) or not all(map(_is_target, targets)):
            raise LabelError(f"targets: {self.title} takes {self.form}")
        return [Truth(target["boxes"], target["labels"]) for target in targets]

    @abstractmethod
    def losses(self, output: Any, truths: Sequence[Truth]) -> list[Tensor]:
        """Compute the library's loss of each image alone."""

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that the network cannot take."""
        multiple = self.input().multiple
        for side in (height, width):
            if side % multiple:
                below = side - side % multiple
                near = f"{below} or {below + multiple}" if below else str(multiple)
                raise SettingsError(
                    f"size = {side}: {self.title} takes multiples of {multiple}, such as {near}"
                )

    def loss_per_image(self, output: Any, targets: Any) -> Tensor:
        if isinstance(targets, ObjectBatch):
            truths = [
                Truth(boxes[:count], labels[:count] - 1 + self.first)
                for boxes, labels, count in zip(targets.boxes, targets.labels, targets.counts)
            ]
        else:
            truths = self.truths(output, targets)
        if len(truths) != self.images(output):
            raise LabelError(
                f"{len(truths)} targets for {self.images(output)} images: give one per image"
            )
        for row, truth in enumerate(truths):
            self._check(row, truth)
        return torch.stack(self.losses(output, truths))

    def _check(self, row: int, truth: Truth) -> None:
        """Refuse what indexing would take for another class, or an overlap of 0/0."""
        last = self.first + len(self.classes) - 1
        odd = truth.labels[(truth.labels < self.first) | (truth.labels > last)]
        if len(odd):
            raise LabelError(
                f"image {row} of the batch: a box of class {int(odd[0])}; the network has "
                f"{self.first} to {last}"
            )
        flat = truth.boxes[(truth.boxes[:, 2:] <= truth.boxes[:, :2]).any(1)]
        if len(flat):
            raise LabelError(
                f"image {row} of the batch: the box {flat[0].tolist()} has no area; boxes are "
                "x0, y0, x1, y1 with x0 < x1 and y0 < y1"
            )

    def outputs(self, output: Any) -> dict[str, Tensor]:
        return image_scores.scores(self.anchors(output))

    def summary(self, output: Any) -> Tensor:
        return image_scores.summary(self.anchors(output))

    def collate(self, targets: Sequence[Any]) -> Any:
        """Keep targets in a list: images have different numbers of boxes."""
        return list(targets)


def _is_target(target: Any) -> bool:
    return isinstance(target, Mapping) and {"boxes", "labels"} <= target.keys()


def row_of(values: Any, row: int) -> Any:
    """Take one image out of nested predictions: tensors [N, ...] become [1, ...]."""
    if isinstance(values, Tensor):
        return values[row : row + 1]
    if isinstance(values, Mapping):
        return {key: row_of(value, row) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [row_of(value, row) for value in values]
    return values
