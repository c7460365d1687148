"""Copies of the images of a task list."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from lloss.annotations.task_lists.task_list import TaskImage
from lloss.images.decode import Raw


def copy_image(image: TaskImage, path: Path) -> None:
    """Write the image's own bytes; pixels become a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:  # two names may be one path
        file.write(encoded(image.read()))


def encoded(raw: Raw) -> bytes:
    """Return the bytes of an image file."""
    if isinstance(raw, np.ndarray):
        buffer = io.BytesIO()
        grey = raw.ndim == 3 and raw.shape[2] == 1
        Image.fromarray(raw[:, :, 0] if grey else raw).save(buffer, "PNG")
        return buffer.getvalue()
    return raw


def file_suffix(raw: Raw) -> str:
    """Return the suffix of such a file, ``.png`` or ``.jpg`` for example; "" for unknown bytes."""
    if isinstance(raw, np.ndarray):
        return ".png"
    try:
        with Image.open(io.BytesIO(raw)) as image:
            kind = str(image.format).lower()
    except Exception:  # decoders raise nearly anything on a broken file
        return ""
    return {"jpeg": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")
