"""Masks by name, without their classes: the task of masks, which reads those, needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from lloss.errors import LabelError
from lloss.pools import FolderPool

MARKS = "pixel of a class"
"""What masks mark, in words."""


@dataclass(frozen=True)
class MaskFile:
    """A mask in a folder; it is read only when somebody asks whether it is empty."""

    path: Path
    marks: ClassVar[str] = MARKS

    @cached_property
    def empty(self) -> bool:
        """Whether all pixels are 255, which stands for no class."""
        try:
            with Image.open(self.path) as mask:
                return mask.mode in ("P", "L") and mask.getextrema() == (255, 255)
        except Exception as error:  # decoders raise nearly anything on a broken file
            raise LabelError(f"{self.path}: cannot be read as a mask: {error}") from error


@dataclass(frozen=True)
class MaskOfCycle:
    """A mask in a cycle's copy of its labels."""

    empty: bool
    marks: ClassVar[str] = MARKS


def list_masks(folder: Path) -> dict[str, MaskFile]:
    """List the masks of a folder by their path in it."""
    masks = {id: MaskFile(folder / id) for id in FolderPool(folder).ids()}
    if not masks:
        raise LabelError(f"{folder}: holds neither VOC XML nor masks")
    return masks


def masks_of_cycle(document: Mapping[str, Any]) -> dict[str, MaskOfCycle]:
    """The masks in a cycle's copy of its labels, by the id of the image."""
    masks = {id: one for id, one in document.items() if isinstance(one, dict) and "sha256" in one}
    return {id: MaskOfCycle(one.get("names") == {}) for id, one in masks.items()}
