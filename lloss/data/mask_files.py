"""Masks by name, without their classes: the task of masks, which reads those, needs torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lloss.annotations.label_types import NO_CLASS
from lloss.data.class_labels import DATA_ROOT
from lloss.errors import LabelError
from lloss.files import atomic_write
from lloss.pools import FolderPool


@dataclass(frozen=True)
class MaskFile:
    """A mask in a folder; it is read only where it matters whether it is empty."""

    path: Path
    marks: ClassVar[str] = "pixel of a class"

    @cached_property
    def empty(self) -> bool:
        """Whether no pixel is of a class."""
        try:
            with Image.open(self.path) as mask:
                return mask.mode in ("P", "L") and mask.getextrema() == (NO_CLASS, NO_CLASS)
        except Exception as error:  # decoders raise nearly anything on a broken file
            raise LabelError(f"{self.path}: cannot be read as a mask: {error}") from error


def keep_mask(pixels: NDArray[np.uint8]) -> Path:
    """Write a mask [H, W] to a file of its own, whose name its content decides."""
    height, width = pixels.shape
    name = f"{height}x{width}-{hashlib.sha256(pixels.tobytes()).hexdigest()}.png"
    path = DATA_ROOT.expanduser() / "masks" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            Image.fromarray(pixels).save(aside, "PNG")
    return path


def list_masks(folder: Path) -> dict[str, MaskFile]:
    """List the masks of a folder by their path in it."""
    masks = {id: MaskFile(folder / id) for id in FolderPool(folder).ids()}
    if not masks:
        raise LabelError(f"{folder}: holds neither VOC XML, YOLO text nor masks")
    return masks
