"""Labeled images, decoded, and the batches that training takes of them."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from lloss.annotations import Problems
from lloss.data.decode_ahead import decode_with
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError
from lloss.images.cropped_share import CroppedShare
from lloss.images.decode import ImageSpec, Pixels, largest_of_16_bits
from lloss.runtime.cpu_count import usable_cores
from lloss.tasks import get_task
from lloss.tasks.task import Decoding, Share
from lloss.tasks.train_settings import TrainSettings
from lloss.training.process_group import even_part

CHECKED = 64  # Images whose brightness is checked, spread over the set
DARK = 63  # The white of 14 bits in a file of 16, as of 255. Sensors have 10 to 14 bits
WORKERS = 8  # Processes, at most, that augment for a GPU


class Examples(Protocol):
    """Labeled images by their rows."""

    def __len__(self) -> int: ...

    def batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, list[Any]]:
        """Return images, uint8 [B, H, W, 3] or normalized float [B, 3, H, W], and their targets."""


class Batching(Protocol):
    """What makes a batch of examples: a :class:`.Task`, or the functions of a user's object."""

    def augment(
        self,
        images: torch.Tensor,
        targets: list[Any],
        settings: TrainSettings,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, list[Any]]:
        """Change images and their targets at random."""

    def collate(self, targets: Sequence[Any]) -> Any:
        """Return what :meth:`.Objective.loss_per_image` takes."""


class BatchSource(Protocol):
    """Batches by epoch and step: the same after any resume."""

    images: int  # in an epoch
    steps: int  # in an epoch

    def stream(
        self, epoch: int, step: int, *, workers: int = 0, pinned: bool = False
    ) -> Iterator[tuple[torch.Tensor, Any]]:
        """Yield the batches from this epoch and step on; ``workers`` processes augment ahead."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Decoded labeled images."""

    images: NDArray[np.uint8]  # uint8 [N, H, W, 3], as `Task.training_spec` says
    # Of each, as `Task.example` makes them (a class's index, for example)
    targets: Sequence[Any] | NDArray[np.int64]
    classes: tuple[str, ...]  # the class names
    sha256: str = ""  # identifies the labeled set it was made of
    # What the network's input cuts off of the images, where that was counted
    cut: CroppedShare | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, list[Any]]:
        """Return the images uint8 [B, H, W, 3] and the targets of these rows."""
        return torch.from_numpy(self.images[rows]), [self.targets[row] for row in rows]

    def take(self, rows: NDArray[np.int64]) -> TrainingData:
        """Return the data of these rows alone."""
        targets = [self.targets[row] for row in rows]
        return TrainingData(self.images[rows], targets, self.classes, self.sha256)


def pixels_sha256(images: NDArray[Any]) -> str:
    """Digest decoded images: a file may hold other pixels under the same name later."""
    digest = hashlib.sha256(repr(images.shape).encode())
    for image in images:  # one at a time: they may be on disk
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def seed_of(*words: int) -> int:
    """Hash whole numbers to a seed."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def at_once(height: int, width: int) -> int:
    """Return how many images a network predicts at once: 256 of 64×64 pixels at most.

    Their feature maps must fit into a small memory.
    """
    return max(1, min(256, 256 * 64 * 64 // (height * width)))


def moved(targets: Any, device: torch.device) -> Any:
    """Return collated targets on a device, whatever they are made of."""
    if hasattr(targets, "to"):
        return targets.to(device)
    if isinstance(targets, Mapping):
        return {key: moved(value, device) for key, value in targets.items()}
    if isinstance(targets, (tuple, list)):
        return type(targets)([moved(value, device) for value in targets])
    return targets


PAIRS = "the head learns from pairs of images; label a second one"


def steps_of(images: int, batch_size: int) -> int:
    """Return the steps of an epoch, none of them with a single image.

    Of an odd number of images in batches of 2 one has 3.
    """
    return min(-(-images // batch_size), images // 2)


class Batches(Dataset[tuple[torch.Tensor, Any]]):
    """Augmented batches by epoch and step.

    All draws of a batch come from (seed, epoch, step), so it is the same in any process and after
    any resume. No image of an epoch is dropped, and none is alone in its batch. Raises
    ``LabelError`` for fewer than two images.

    ``part`` of the number of images in a batch gives the rows of this process; None takes all.
    """

    part: Callable[[int], slice] | None = None

    def __init__(self, task: Batching, settings: TrainSettings, data: Examples) -> None:
        self.task, self.settings, self.data = task, settings, data
        self.images = count = len(data)
        if count < 2:
            raise LabelError(f"{count} labeled image: {PAIRS}")
        self.steps = steps_of(count, settings.batch_size)
        self._order: tuple[int, NDArray[np.int64]] = -1, np.zeros(0, np.int64)

    def __getitem__(self, place: tuple[int, int]) -> tuple[torch.Tensor, Any]:
        """Return the images and collated targets of an epoch and step."""
        epoch, step = place
        if self._order[0] != epoch:
            random = np.random.default_rng([self.settings.seed, 2, epoch])
            self._order = epoch, random.permutation(self.images)
        rows = self._order[1][even_part(self.images, self.steps, step)]
        seed = seed_of(self.settings.seed, 3, epoch, step)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # for a user's dataset and augment
            images, targets = self._augmented(rows, torch.Generator().manual_seed(seed))
            return images, self.task.collate(targets)

    def _augmented(
        self, rows: NDArray[np.int64], generator: torch.Generator
    ) -> tuple[torch.Tensor, list[Any]]:
        """Return what this process takes of a batch."""
        augment: Callable[..., tuple[torch.Tensor, list[Any]]] = self.task.augment
        if self.part is None:
            return augment(*self.data.batch(rows), self.settings, generator)
        own = self.part(len(rows))
        if "share" in inspect.signature(augment).parameters:
            share = Share(own, len(rows))
            return augment(*self.data.batch(rows[own]), self.settings, generator, share)
        # A task of a package, whose draws are for a whole batch.
        images, targets = augment(*self.data.batch(rows), self.settings, generator)
        return images[own], targets[own]

    def stream(
        self, epoch: int, step: int, *, workers: int = 0, pinned: bool = False
    ) -> Iterator[tuple[torch.Tensor, Any]]:
        """Yield the batches from this epoch and step on; ``workers`` processes augment ahead."""
        places = [divmod(at, self.steps) for at in range(self.settings.epochs * self.steps)]
        loader: DataLoader[Any] = DataLoader(
            self,
            batch_size=None,
            sampler=places[epoch * self.steps + step :],
            num_workers=workers,
            pin_memory=pinned,
            multiprocessing_context="fork" if workers else None,
            generator=torch.Generator(),  # torch's global one stays as it is
        )
        return iter(loader)


def workers_for(device: torch.device, trainers: int = 1) -> int:
    """Processes that augment: they keep a GPU busy; on a CPU the network takes all cores.

    ``trainers`` share the cores of the machine.
    """
    if device.type != "cuda" or sys.platform != "linux":
        return 0
    return max(0, min(WORKERS, usable_cores() // trainers - 1))


def load_examples(
    labeled: LabeledSet,
    classes: Sequence[str],
    settings: TrainSettings,
    problems: Problems,
    *,
    for_training: bool = False,
    scratch: Path | None = None,
    what: str = "labeled",
    image: ImageSpec | None = None,
) -> tuple[TrainingData, list[int]]:
    """Decode labeled images and make their targets.

    ``for_training`` they are as the task keeps them to augment, otherwise as a scorer decodes them:
    as ``image`` says, by default the settings. ``scratch`` is a folder for what does not fit into
    memory.

    Returns the data, and the rows of ``labeled`` that they are of. Raises ``LabelError`` where one
    cannot be used and is not to be left out, or none can.
    """
    task = get_task(settings.task)
    image = image or settings.image_spec()
    spec = task.training_spec(settings) if for_training else image
    classes = tuple(classes)
    cut = CroppedShare(image, task.unit)
    how = Decoding(classes, spec, for_training, cut)

    def example(row: int, out: Pixels) -> Any:
        item, label = labeled.items[row], labeled.labels[row]
        return task.example(item, label, how, out)

    bad = set[int]()

    def failed(row: int, reason: ImageError | LabelError) -> None:
        problems.report(f"{labeled.origin}: {labeled.items[row].id!r}", str(reason))
        bad.add(row)

    images, targets = decode_with(example, failed, labeled.items, spec, scratch, what)
    rows = [row for row in range(len(labeled)) if row not in bad]
    if not rows:
        raise LabelError(f"{labeled.origin}: {problems.summary()}; no {what} image is left")
    for place, row in enumerate(rows):  # close the gaps where the array is
        if place != row:
            images[place] = images[row]
    if note := _note_dark(labeled.take(rows), images, settings):
        problems.note(note)
    kept = [targets[row] for row in rows]
    return TrainingData(images[: len(rows)], kept, classes, labeled.sha256, cut), rows


def _note_dark(labeled: LabeledSet, images: Pixels, settings: TrainSettings) -> str:
    """Note images of 16 bits that are nearly black, as those of a 12-bit sensor are.

    Not where another uses its 16 bits: such a sensor has dark images too.
    """
    if settings.white:
        return ""
    rows = range(0, len(labeled), max(1, len(labeled) // CHECKED))
    largest = {row: largest_of_16_bits(labeled.items[row].read()) for row in rows}
    black = [row for row in rows if images[row].max() <= DARK and largest[row]]
    deep = [value for value in largest.values() if value]
    if not black or len(black) < len(deep):
        return ""
    white = 2 ** max(deep).bit_length() - 1
    return (
        f"{labeled.origin}: images look nearly black: of {len(rows)} that were checked {len(deep)} "
        f"have 16 bits and no value above {max(deep)}; if {white} is white, pass --white {white}"
    )
