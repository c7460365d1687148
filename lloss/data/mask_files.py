"""Masks by name, without their classes: the task of masks, which reads those, needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from PIL import Image

from lloss.annotations.label_types import NO_CLASS
from lloss.errors import LabelError
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


def list_masks(folder: Path) -> dict[str, MaskFile]:
    """List the masks of a folder by their path in it."""
    masks = {id: MaskFile(folder / id) for id in FolderPool(folder).ids()}
    if not masks:
        raise LabelError(f"{folder}: holds neither VOC XML, YOLO text nor masks")
    return masks
