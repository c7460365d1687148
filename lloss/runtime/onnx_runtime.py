"""Import onnxruntime, which is an optional package of two names."""

from __future__ import annotations

from typing import Any

from lloss.errors import MissingExtraError


def import_onnxruntime() -> Any:
    """Import the module ``onnxruntime``."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("running a model", "cpu", "onnxruntime") from error
    return onnxruntime
