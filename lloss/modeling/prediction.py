"""The prediction in whatever a network from outside returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

KEYS = ("logits", "out")
"""Where Hugging Face and torchvision's segmentation networks keep their prediction."""


def prediction_of(output: Any) -> Any:
    """Return the prediction in an output: ``logits`` or ``out`` of it, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    for key in KEYS:
        found = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, Mapping):
        only = list(output.values())
        return only[0] if len(only) == 1 else output
    return output[0] if isinstance(output, (tuple, list)) and output else output


def described(value: Any) -> str:
    """Describe an output for a message: its shape, or its type and keys."""
    if isinstance(value, Tensor):
        return str(list(value.shape))
    keys = f" with {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
    return f"a {type(value).__name__}{keys}"
