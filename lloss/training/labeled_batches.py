"""Labeled images for a network from outside, whatever form they come in, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from lloss.annotations import Problems
from lloss.data.decode_ahead import decode_with
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError, SettingsError
from lloss.images.decode import Pixels, decode_into
from lloss.modeling.attached_model import AttachedModel, refuse_unattached
from lloss.modeling.network import Normalize
from lloss.pools import Item
from lloss.pools.in_memory_pool import pool_of
from lloss.tasks import get_task, task_names
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.counts import part
from lloss.text.first_names import first_names
from lloss.training.class_targets import known_classes, refuse_other_classes, target_list
from lloss.training.training_data import (
    Batches,
    Batching,
    BatchSource,
    Examples,
    TrainingData,
    at_once,
    load_examples,
    moved,
    pixels_sha256,
    seed_of,
)

FAR = 10
"""So many times the largest normalized value come of pixels that are not normalized."""


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images as a model takes them, decoded once and batched as often as asked."""

    model: AttachedModel
    examples: Examples | None  # None: ``loader`` makes the batches
    batching: Batching
    loader: Any = None

    @classmethod
    def of(
        cls,
        model: AttachedModel,
        data: Any,
        targets: Any = None,
        training: TrainSettings | None = None,
        problems: Problems | None = None,
    ) -> LabeledImages:
        """Decode what is not decoded.

        Args:
            model: whose preparation the images get.
            data: a labeled set; images in memory or paths with ``targets``; a tensor float
                [N, 3, H, W], normalized already, with ``targets``; a dataset of pairs (image float
                [3, H, W], target); or batches (images float [B, 3, H, W], targets), such as a
                DataLoader's.
            targets: one per image: what ``loss_per_image`` takes, or class names or numbers.
            training: the settings to augment by; None for images as a scorer decodes them.
            problems: receives notes on a labeled set.
        """
        refuse_unattached(model)
        refuse_other_classes(model, data)
        own = getattr(model.objective, "task", model.objective)
        if isinstance(data, LabeledSet):
            return cls(model, _decoded_set(model, data, training, problems), get_task(model.task))
        mapped = isinstance(data, Dataset) and not isinstance(data, IterableDataset)
        if targets is None and mapped:
            return cls(model, _DatasetExamples(data), OwnBatching(own, model))
        if targets is None:
            if not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping)):
                raise LabelError(
                    f"a {type(data).__name__}: give a labeled set, images and targets, a dataset, "
                    "or a DataLoader"
                )
            return cls(model, None, OwnBatching(own, model), data)
        floats = isinstance(data, Tensor) and data.is_floating_point()
        made = target_list(model, targets)
        examples = _Tensors(data.detach().cpu(), made) if floats else _decoded(model, data, made)
        if len(examples) != len(made):
            raise LabelError(
                f"{len(examples)} images and {len(made)} targets: give one target per image"
            )
        known = model.task == "classification" and not floats
        return cls(model, examples, get_task(model.task) if known else OwnBatching(own, model))

    @property
    def augmented(self) -> bool:
        """Whether a task of lloss augments them, by the setting ``augment``."""
        return isinstance(self.batching, Task)

    @property
    def images_sha256(self) -> str:
        """Identifies the images; "" where a dataset or a loader makes them."""
        match self.examples:
            case TrainingData(images=images):
                return pixels_sha256(images)
            case _Tensors(images=images):
                return pixels_sha256(images.numpy())
        return ""

    def source(self, settings: TrainSettings) -> BatchSource:
        """Return the batches to train on."""
        if self.examples is None:
            return _LoaderBatches(self.loader, settings, self.model)
        return Batches(self.batching, settings, self.examples)

    def batches(self, view: int = 0, seed: int = 0) -> Iterator[tuple[Tensor, Any]]:
        """Yield normalized images float [B, 3, H, W] and their targets, on the model's device.

        The images of a ``view`` above 0 are augmented ones, in the same order.
        """
        device = next(self.model.parameters()).device
        if self.examples is None:
            if view:
                raise SettingsError("views: a loader augments its images itself; leave views out")
            for batch in self.loader:
                images, targets = _checked(batch, self.model)
                _refuse_size(images, self.model)
                yield images.to(device), moved(targets, device)
            return
        preparation, spec = self.model.preparation, self.model.preparation.image
        generator = torch.Generator().manual_seed(seed_of(seed, view))
        normalize = Normalize(preparation.mean, preparation.std)
        size = at_once(spec.height, spec.width)
        for start in range(0, len(self.examples), size):
            rows = np.arange(start, min(start + size, len(self.examples)))
            images, some = self.examples.batch(rows)
            if view:
                images, some = self._augmented(images, some, generator)
            images = images.float() if images.is_floating_point() else normalize(images)
            _refuse_size(images, self.model)
            _refuse_pixels(images, self.model)
            yield images.to(device), moved(self.batching.collate(some), device)

    def _augmented(
        self, images: Tensor, targets: list[Any], generator: torch.Generator
    ) -> tuple[Tensor, list[Any]]:
        if images.is_floating_point():
            raise SettingsError("views: are of images uint8 [N, H, W, 3], not of a float tensor")
        own = isinstance(self.batching, OwnBatching) and self.batching.augments
        if self.model.task != "classification" and not own:
            raise SettingsError(
                f"views: are made for classification, not for {self.model.task!r}; augment in a "
                "DataLoader"
            )
        settings = TrainSettings(size=min(images.shape[1:3]))
        return self.batching.augment(images, targets, settings, generator)


@dataclass(frozen=True)
class OwnBatching:
    """``collate`` and ``augment`` of a user's task, where it has them; the settings do not count.

    Without a task, or its functions, torch's collation, and no augmentation.
    """

    task: Any
    model: AttachedModel

    @property
    def augments(self) -> bool:
        """Whether the task augments images."""
        return hasattr(self.task, "augment")

    def augment(
        self,
        images: Tensor,
        targets: list[Any],
        settings: TrainSettings,
        generator: torch.Generator,
    ) -> tuple[Tensor, list[Any]]:
        """Let the task change them; refuse a result that the network cannot be trained on."""
        if images.is_floating_point():
            _refuse_pixels(images, self.model)
        if not self.augments:
            return images, targets
        found, of = self.task.augment(images, targets, generator), type(self.task).__name__
        pair = isinstance(found, (tuple, list)) and len(found) == 2
        if not pair or not isinstance(found[0], Tensor) or found[0].dtype != images.dtype:
            raise SettingsError(
                f"augment of {of}: returned {_kind(found)}; return (images, targets), the images "
                f"{_kind(images)}"
            )
        if len(found[0]) != len(images) or len(found[1]) != len(images):
            raise SettingsError(
                f"augment of {of}: returned {len(found[0])} images and {len(found[1])} targets "
                f"for {len(images)} images"
            )
        return found[0], list(found[1])

    def collate(self, targets: Sequence[Any]) -> Any:
        """Let the task make one batch of them, or stack them."""
        made = (getattr(self.task, "collate", None) or default_collate)(list(targets))
        return known_classes(self.model, made)


@dataclass(frozen=True)
class _Tensors:
    """Normalized images in memory, float [N, 3, H, W]."""

    images: Tensor
    targets: Sequence[Any]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, list[Any]]:
        return self.images[torch.from_numpy(rows)], [self.targets[row] for row in rows]


@dataclass(frozen=True)
class _DatasetExamples:
    """A dataset that decodes, normalizes and augments its images itself."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, list[Any]]:
        pairs = [self.dataset[int(row)] for row in rows]
        for row, pair in zip(rows, pairs):
            made = pair[0] if isinstance(pair, (tuple, list)) and len(pair) == 2 else pair
            if not isinstance(made, Tensor) or made.ndim != 3 or not made.is_floating_point():
                raise LabelError(
                    f"a dataset whose example {row} is {_kind(pair)}: it must be (image float "
                    "[3, H, W], normalized; target)"
                )
        return torch.stack([image for image, _ in pairs]), [target for _, target in pairs]


class _LoaderBatches:
    """A loader's batches, epoch by epoch.

    A DataLoader draws its order, and most augmentation its changes, from torch's global generator:
    it is seeded by epoch and step, so that a resumed run sees the same batches.
    """

    def __init__(self, loader: Any, settings: TrainSettings, model: AttachedModel) -> None:
        try:
            self.steps = len(loader)
        except TypeError as error:
            raise SettingsError(
                f"a {type(loader).__name__} without a length: fit goes through its batches again "
                "in each epoch; give a DataLoader of a dataset with a length"
            ) from error
        if not self.steps:
            raise LabelError("the loader has no batch; give labeled images")
        self.loader, self.settings, self.model = loader, settings, model
        self.images = self.steps * (getattr(loader, "batch_size", None) or 1)

    def stream(
        self, epoch: int, step: int, *, workers: int = 0, pinned: bool = False
    ) -> Iterator[tuple[Tensor, Any]]:
        """Yield the batches from this epoch and step on; those before the step are drawn too."""
        for number in range(epoch, self.settings.epochs):
            for at, batch in enumerate(self._epoch(number)):
                if number > epoch or at >= step:
                    yield batch

    def _epoch(self, epoch: int) -> Iterator[tuple[Tensor, Any]]:
        batches: Iterator[Any] | None = None
        for step in range(self.steps):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed_of(self.settings.seed, 3, epoch, step))
                batches = iter(self.loader) if batches is None else batches
                try:
                    batch = next(batches)
                except StopIteration:
                    raise LabelError(
                        f"the loader ended after {step} batches, its length is {self.steps}"
                    ) from None
            images, targets = _checked(batch, self.model)
            if len(images) < 2:
                raise LabelError(
                    "the loader has a batch of one image, which the head cannot compare with "
                    "another; pass drop_last=True to the DataLoader"
                )
            yield images, targets


def _checked(batch: Any, model: AttachedModel) -> tuple[Tensor, Any]:
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if not pair or not isinstance(batch[0], Tensor) or batch[0].ndim != 4:
        raise LabelError(
            f"a loader of {type(batch).__name__}: its batches must be (images float "
            "[B, 3, H, W], targets)"
        )
    if not batch[0].is_floating_point():
        raise LabelError(
            f"a loader of images {_kind(batch[0])}: give float [B, 3, H, W], normalized by the "
            "model's preparation"
        )
    _refuse_pixels(batch[0], model)
    return batch[0].float(), known_classes(model, batch[1])


def _refuse_size(images: Tensor, model: AttachedModel) -> None:
    """Refuse images that a scorer would show the network at another size."""
    spec, (height, width) = model.preparation.image, images.shape[2:]
    if (height, width) != (spec.height, spec.width):
        raise LabelError(
            f"images of {height}×{width} pixels: the model is for {spec.height}×{spec.width}; "
            "resize them, or attach with their size"
        )


def _refuse_pixels(images: Tensor, model: AttachedModel) -> None:
    """Refuse images float [B, 3, H, W] that are not normalized."""
    how = model.preparation
    usual = max(max(mean, 1 - mean) / std for mean, std in zip(how.mean, how.std))
    if (largest := float(images.abs().max())) > FAR * usual:
        raise LabelError(
            f"images float up to {largest:.3g}: normalize them by mean and std of "
            "model.preparation, or give uint8 [N, H, W, 3]"
        )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_kind, value))})"
    return f"a {type(value).__name__}"


def _decoded_set(
    model: AttachedModel,
    labeled: LabeledSet,
    training: TrainSettings | None,
    problems: Problems | None,
) -> TrainingData:
    """Decode a labeled set, whose labels a task of lloss reads."""
    if model.task not in task_names():
        raise SettingsError(
            f"task {model.task!r}: only a task of lloss reads the labels of a labeled set; "
            "give images and targets, or a DataLoader"
        )
    refuse_without_loss(get_task(model.task), labeled, model.classes)
    image = model.preparation.image
    settings = training or TrainSettings(
        task=model.task, size=min(image.height, image.width), fit=image.fit, white=image.white
    )
    data, _ = load_examples(
        labeled.ordered(),
        model.classes,
        settings,
        problems or Problems(remedy="labeled.take(rows)"),
        # Tasks that keep larger images for training have square inputs only.
        for_training=training is not None and image.height == image.width,
        image=image,
    )
    return data


def _decoded(model: AttachedModel, images: Any, targets: Sequence[Any]) -> TrainingData:
    """Decode images in memory, or of paths."""
    spec = model.preparation.image
    items = list(pool_of(images.cpu().numpy() if isinstance(images, Tensor) else images))

    def example(row: int, out: Pixels) -> None:
        decode_into(items[row].read(), spec, out)

    def failed(row: int, reason: ImageError | LabelError) -> None:
        raise LabelError(f"{items[row].id!r}: {reason}; leave it out") from reason

    pixels, _ = decode_with(example, failed, items, spec)
    return TrainingData(pixels, targets, model.classes)


def refuse_without_loss(task: Task, labeled: LabeledSet, classes: Sequence[str]) -> None:
    """Refuse labels on which a network has no loss: the head would learn that theirs is 0."""
    known = [task.has_loss(label, classes) for label in labeled.labels]
    if not all(known):
        first: Item = labeled.items[known.index(False)]
        raise LabelError(
            f"{labeled.origin}: {part(known.count(False), len(known), 'labels', 'show')} no class "
            f"of the network (the first: {labeled.labels[known.index(False)]!r} on {first.id!r}; "
            f"its classes: {first_names(classes)})"
        )
