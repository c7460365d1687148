"""Targets of a network from outside: one per image, of a classifier numbers of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

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
