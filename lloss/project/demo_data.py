"""The demo's data: scikit-learn's digits as files, and the oracle that labels them.

1,797 images of 8×8 pixels come with scikit-learn, so that the demo downloads nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lloss.annotations.label_csv import labels_text
from lloss.files import write_text
from lloss.selection.hashing import draw_ids
from lloss.training.training_data import TrainingData

TEST = 500
INITIAL, K, CYCLES = 50, 40, 3

SETTINGS: dict[str, Any] = {
    "model": "resnet10-cifar-narrow",
    "size": 8,
    "epochs": 60,
    "batch_size": 32,
    "lr": 0.05,
    "augment": "crop",
    "crop_padding": 1,
}
"""What is particular to tiny images; all else is lloss's default."""


@dataclass(frozen=True)
class Digits:
    """A pool with known labels, and a test set."""

    pool: TrainingData
    test: TrainingData

    @property
    def first(self) -> tuple[int, ...]:
        """Rows of the pool that are labeled to begin with."""
        rows = map(str, range(len(self.pool.images)))
        return tuple(sorted(map(int, draw_ids(rows, INITIAL, 0))))


def digits() -> Digits:
    """The digits, split at random but always the same; images uint8 [N, 8, 8, 3]."""
    from sklearn.datasets import load_digits  # an extra

    bunch = load_digits()
    grey = (bunch.images * 255 / 16).round().astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    targets = bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    classes = tuple(map(str, range(10)))
    parts = [TrainingData(images[r], targets[r], classes) for r in (order[TEST:], order[:TEST])]
    return Digits(*parts)


def name_of(row: int) -> str:
    """The pool's id of a row."""
    return f"{row:04d}.png"


def write_files(data: Digits, folder: Path) -> None:
    """``pool/*.png``, ``test/CLASS/*.png`` and ``labels.csv`` of the first few."""
    for split, part in (("pool", data.pool), ("test", data.test)):
        for row, (pixels, target) in enumerate(zip(part.images, part.targets)):
            inner = folder / split if split == "pool" else folder / split / str(target)
            inner.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0]).save(inner / name_of(row))
    write_text(folder / "labels.csv", labels_text(oracle(data, map(name_of, data.first))))


def oracle(data: Digits, ids: Iterable[str]) -> dict[str, str]:
    """The true labels of these ids."""
    return {id: str(data.pool.targets[int(Path(id).stem)]) for id in ids}


def label(data: Digits, selected: Path, labels: Path) -> None:
    """Do the labeler's work: append the selected ids with their true labels."""
    with selected.open(newline="", encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    rows = labels_text(oracle(data, ids)).partition("\n")[2]
    with labels.open("a", encoding="utf-8", newline="") as file:
        file.write(rows)
