"""Targets of a network from outside: one per image, of a classifier numbers of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from lloss.errors import LabelError
from lloss.modeling.attached_model import AttachedModel
from lloss.text.first_names import first_names


def target_list(model: AttachedModel, targets: Any) -> Sequence[Any]:
    """One target per image; of a classifier the indices of the classes that are named.

    Raises ``LabelError`` for something else than a list, or for a class that the network has not.
    """
    if not hasattr(targets, "__len__") or not hasattr(targets, "__getitem__"):
        raise LabelError(f"targets: a {type(targets).__name__}; give one per image, in a list")
    if model.task != "classification" or not len(targets):
        return targets  # type: ignore[no-any-return]
    if not any(isinstance(name, str) for name in targets):
        return known_classes(model, targets).cpu()  # type: ignore[no-any-return]
    places = {name: place for place, name in enumerate(model.classes)}
    if unknown := [name for name in targets if name not in places]:
        raise _unknown(model, unknown[0])
    return [places[name] for name in targets]


def refuse_other_classes(model: AttachedModel, data: Any) -> None:
    """Refuse a dataset whose class of a number is another than the model's.

    torchvision's datasets name theirs in ``classes``, those of an ImageFolder in the order of the
    alphabet; subsets and loaders of them are looked through. A ``target_transform`` may number them
    otherwise, and the names 0, 1, 2, … of a model say nothing but how many there are. Raises
    ``LabelError``.
    """
    if model.task != "classification":
        return
    ours, unnamed = model.classes, model.classes == tuple(map(str, range(len(model.classes))))
    for dataset in _within(data):
        names = getattr(dataset, "classes", None)
        if getattr(dataset, "target_transform", None) or not _are_names(names):
            continue
        theirs, known = tuple(map(str, names)), "the order of the network's outputs"
        if unnamed and len(theirs) != len(ours):
            raise LabelError(
                f"a {type(dataset).__name__} of {len(theirs)} classes for a network of "
                f"{len(ours)} outputs: give it a target_transform from its numbers to {known}"
            )
        for number, (their, our) in enumerate(zip(theirs, () if unnamed else ours)):
            if their != our:
                raise LabelError(
                    f"a {type(dataset).__name__} whose class {number} is {their!r}, the model's is "
                    f"{our!r}: attach with classes=dataset.classes if that is {known}, or give "
                    "the dataset a target_transform from its numbers to that order"
                )


def _within(data: Any) -> Iterator[Any]:
    """The datasets that a dataset or a loader of torch is made of."""
    match data:
        case DataLoader() | Subset():
            yield from _within(data.dataset)
        case ConcatDataset():
            for part in data.datasets:
                yield from _within(part)
        case Dataset():
            yield data


def _are_names(names: Any) -> TypeGuard[Sequence[str]]:
    listed = isinstance(names, (list, tuple)) and len(names) > 0
    return listed and all(isinstance(name, str) for name in names)


def known_classes(model: AttachedModel, targets: Any) -> Any:
    """Check numbers of classes, and return them as int64 [N]; targets of other tasks as they are.

    The loss of -1 would be 0, and 0.5 would be taken for 0. Raises ``LabelError``.
    """
    if model.task != "classification":
        return targets
    try:
        numbers = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LabelError(f"targets: {error}; give the number of each image's class") from error
    if numbers.ndim != 1 or numbers.is_floating_point():
        kind = f"{str(numbers.dtype).removeprefix('torch.')} {list(numbers.shape)}"
        raise LabelError(f"targets {kind}: give the number of each image's class, int [N]")
    numbers = numbers.long()
    outside = numbers[(numbers < 0) | (numbers >= len(model.classes))]
    if len(outside):
        raise _unknown(model, int(outside[0]))
    return numbers


def _unknown(model: AttachedModel, label: Any) -> LabelError:
    last = len(model.classes) - 1
    return LabelError(
        f"the label {label!r}: the network has the classes {first_names(model.classes)}, by name "
        f"or by number from 0 to {last}"
    )
