"""Small annotation files and images, written as users have them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.errors import LabelError

OBJECT = (
    "<object>\n<name>{name}</name>\n<difficult>{difficult}</difficult>\n<bndbox>\n"
    "<xmin>{box[0]}</xmin>\n<ymin>{box[1]}</ymin>\n<xmax>{box[2]}</xmax>\n<ymax>{box[3]}</ymax>\n"
    "</bndbox>\n</object>\n"
)


def check_broken(
    read: Callable[[Problems], Iterable[Any]], expected: str, kept: Sequence[Any], count: int = 1
) -> None:
    """A broken annotation stops the reading with one line, or is left out and counted."""
    with pytest.raises(LabelError, match=expected):
        read(Problems())
    problems = Problems(skip=True)
    assert list(read(problems)) == list(kept)
    assert re.search(expected.removeprefix("^"), problems.broken[0])
    assert len(problems.broken) == count


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Write an image: ``picture(path, width, height)``."""

    def write(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def voc_xml() -> Callable[..., Path]:
    """Write an annotation; its objects are name, difficult and box."""

    def write(
        path: Path,
        objects: Sequence[tuple[str, Any, Sequence[Any]]] = (),
        filename: str = "",
        size: tuple[Any, Any] | None = (40, 30),
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size or (0, 0)
        shape = f"<size>\n<width>{width}</width>\n<height>{height}</height>\n<depth>3</depth>\n"
        head = f"<annotation>\n<filename>{filename}</filename>\n{shape}</size>\n"
        body = "".join(OBJECT.format(name=n, difficult=d, box=b) for n, d, b in objects)
        path.write_text(head + body + "</annotation>\n")
        return path

    return write


@pytest.fixture
def as_json() -> Callable[[Path, Any], Path]:
    """Write JSON as Python does, NaN and all."""

    def write(path: Path, document: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
        return path

    return write


def coco(**changed: Any) -> dict[str, Any]:
    """Two images, the second one empty, and two objects on the first."""
    document: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "b.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 5, 20.5, 10], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
    }
    return {**document, **changed}


@pytest.fixture(name="coco")
def coco_fixture() -> Callable[..., dict[str, Any]]:
    """See :func:`coco`."""
    return coco


JOINTS = [[10.0 + n, 20.0 + n / 2] for n in range(16)]


@pytest.fixture
def person() -> Callable[..., dict[str, Any]]:
    """An entry of MPII's dialect with ``center`` and ``joints``; changes by keyword."""

    def make(image: str = "a.jpg", **changed: Any) -> dict[str, Any]:
        entry = {
            "image": image,
            "center": [100.0, 50.0],
            "scale": 0.5,
            "joints": [list(joint) for joint in JOINTS],
            "joints_vis": [1] * 16,
        }
        entry.update(changed)
        return {key: value for key, value in entry.items() if value is not ...}

    return make
