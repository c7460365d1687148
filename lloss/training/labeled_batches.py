"""Labeled images for a network from outside, whatever form they come in, as its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from lloss.data.decode_ahead import decode_with
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError, SettingsError
from lloss.images.decode import Pixels, decode_into
from lloss.modeling.attached_model import AttachedModel
from lloss.modeling.network import Normalize
from lloss.pools import Item
from lloss.pools.in_memory_pool import pool_of
from lloss.tasks import TASKS, get_task
from lloss.tasks.task import Decoding, Task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.first_names import first_names
from lloss.training.training_data import seed_of

Batch: TypeAlias = tuple[Tensor, Any, bool]
"""Normalized images float [B, 3, H, W], their targets, and whether they are augmented views."""

PIXELS = 256 * 64 * 64
"""Of a batch: feature maps are to fit a small memory."""


def labeled_batches(
    model: AttachedModel, data: Any, targets: Any = None, views: int = 0, seed: int = 0
) -> Iterator[Batch]:
    """Yield batches in the form that the network takes, the images first, then views of them.

    Args:
        model: whose preparation the images get.
        data: a labeled set; images in memory or paths with ``targets``; a tensor float
            [N, 3, H, W], normalized already, with ``targets``; or an iterable of batches
            (images float [B, 3, H, W], targets), such as a DataLoader.
        targets: one per image: what ``loss_per_image`` takes, or class names or numbers.
        views: so many augmented copies of each image, of a task of lloss.
        seed: of the augmentation.
    """
    device = next(model.parameters()).device
    if targets is None and not isinstance(data, LabeledSet):
        if views:
            raise SettingsError("views: a loader augments its images itself; leave views out")
        yield from ((images, targets, False) for images, targets in _loaded(data, device))
        return
    if isinstance(data, Tensor) and data.is_floating_point():
        images: Tensor | NDArray[np.uint8] = data
        made = _targets(model, targets)
    else:
        images, made = _decoded(model, data, targets)
    if len(images) != len(made):
        raise LabelError(f"{len(images)} images and {len(made)} targets: give one target per image")
    collate = _collate(model, data)
    for view in range(views + 1):
        for pixels, some in _batches(model, images, made, view, seed):
            yield pixels.to(device), _moved(collate(some), device), bool(view)


def _loaded(data: Any, device: torch.device) -> Iterator[tuple[Tensor, Any]]:
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping)):
        raise LabelError(
            f"a {type(data).__name__}: give a labeled set, images and targets, or a DataLoader"
        )
    for batch in data:
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not isinstance(batch[0], Tensor) or batch[0].ndim != 4:
            raise LabelError(
                f"a loader of {type(batch).__name__}: its batches must be (images float "
                "[B, 3, H, W], targets)"
            )
        yield batch[0].to(device), _moved(batch[1], device)


def _moved(targets: Any, device: torch.device) -> Any:
    if hasattr(targets, "to"):
        return targets.to(device)
    if isinstance(targets, Mapping):
        return {key: _moved(value, device) for key, value in targets.items()}
    if isinstance(targets, (tuple, list)):
        return type(targets)([_moved(value, device) for value in targets])
    return targets


def _targets(model: AttachedModel, targets: Any) -> Sequence[Any]:
    """One target per image; of a classifier the indices of the classes that are named."""
    if not hasattr(targets, "__len__") or not hasattr(targets, "__getitem__"):
        raise LabelError(f"targets: a {type(targets).__name__}; give one per image, in a list")
    if model.task != "classification" or not len(targets) or not isinstance(targets[0], str):
        return targets  # type: ignore[no-any-return]
    places = {name: place for place, name in enumerate(model.classes)}
    if unknown := [name for name in targets if name not in places]:
        raise LabelError(
            f"the label {unknown[0]!r}: the network has the classes {', '.join(model.classes[:9])}"
        )
    return [places[name] for name in targets]


def _decoded(
    model: AttachedModel, data: Any, targets: Any
) -> tuple[NDArray[np.uint8], Sequence[Any]]:
    spec = model.preparation.image
    task = get_task(model.task) if model.task in TASKS else None
    if isinstance(data, LabeledSet):
        if task is None:
            raise SettingsError(
                f"task {model.task!r}: only a task of lloss reads the labels of a labeled set; "
                "give images and targets, or a DataLoader"
            )
        items, labels = data.items, data.labels
        refuse_without_loss(task, data, model.classes)
        how = Decoding(model.classes, spec)
    else:
        items, labels = list(pool_of(_array(data))), _targets(model, targets)
        if len(items) != len(labels):
            raise LabelError(f"{len(items)} images and {len(labels)} targets: give one per image")

    def example(row: int, out: Pixels) -> Any:
        item: Item = items[row]
        if isinstance(data, LabeledSet) and task is not None:
            return task.example(item, labels[row], how, out)
        decode_into(item.read(), spec, out)
        return labels[row]

    def failed(row: int, reason: ImageError | LabelError) -> None:
        raise LabelError(f"{items[row].id!r}: {reason}; leave it out") from reason

    return decode_with(example, failed, items, spec)


def refuse_without_loss(task: Task, labeled: LabeledSet, classes: Sequence[str]) -> None:
    """Refuse labels on which a network has no loss: the head would learn that theirs is 0."""
    known = [task.has_loss(label, classes) for label in labeled.labels]
    if not all(known):
        first = known.index(False)
        raise LabelError(
            f"{labeled.origin}: {known.count(False)} of {len(known)} labels show no class of the "
            f"network (the first: {labeled.labels[first]!r} on {labeled.items[first].id!r}; its "
            f"classes: {first_names(classes)})"
        )


def _array(images: Any) -> Any:
    return images.cpu().numpy() if isinstance(images, Tensor) else images


def _batches(
    model: AttachedModel,
    images: Tensor | NDArray[np.uint8],
    targets: Sequence[Any],
    view: int,
    seed: int,
) -> Iterator[tuple[Tensor, list[Any]]]:
    """Yield normalized images and their targets; of a view above 0 they are augmented."""
    preparation = model.preparation
    normalize = Normalize(preparation.mean, preparation.std)
    size = max(1, min(256, PIXELS // (preparation.image.height * preparation.image.width)))
    generator = torch.Generator().manual_seed(seed_of(seed, view))
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        chunk, some = images[rows], [targets[row] for row in range(len(targets))[rows]]
        if not isinstance(chunk, Tensor):
            pixels = torch.from_numpy(np.array(chunk))
            if view:
                pixels, some = _augmented(model, pixels, some, generator)
            chunk = normalize(pixels)
        elif view:
            raise SettingsError("views: are of images uint8 [N, H, W, 3], not of a float tensor")
        yield chunk, some


def _augmented(
    model: AttachedModel, pixels: Tensor, targets: list[Any], generator: torch.Generator
) -> tuple[Tensor, list[Any]]:
    if model.task != "classification":
        raise SettingsError(
            f"views: are made for classification, not for {model.task!r}; augment in a DataLoader"
        )
    settings = TrainSettings(size=min(pixels.shape[1:3]))
    return get_task(model.task).augment(pixels, targets, settings, generator)


def _collate(model: AttachedModel, data: Any) -> Callable[[list[Any]], Any]:
    """What makes a batch of targets: the task for its labels, else the user's way or torch's."""
    if isinstance(data, LabeledSet):
        return get_task(model.task).collate
    own: Callable[[list[Any]], Any] | None
    own = getattr(getattr(model.objective, "task", model.objective), "collate", None)
    return own or default_collate
