"""Data sets that torchvision downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lloss.errors import MissingExtraError, PoolError


def download(name: str, kind: str, root: Path, *arguments: Any) -> Any:
    """Make torchvision's data set of a class ``kind``; download it to ``root`` if it is missing."""
    try:
        from torchvision import datasets  # an extra, and heavy
    except ImportError as error:
        raise MissingExtraError(f"the data set {name}", "train", "torchvision") from error
    try:
        return getattr(datasets, kind)(root, *arguments, download=True)
    except (OSError, RuntimeError) as error:
        raise PoolError(f"{name}: cannot be downloaded to {root}: {error}") from error
