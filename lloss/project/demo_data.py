"""The demo's data: scikit-learn's digits, made as real pools are, and the oracle that labels them.

1,797 images of 8×8 pixels come with scikit-learn, so that the demo downloads nothing. They are
too even for a pool as people have it: here some digits are rare, and of each image there are
several that hardly differ, like the frames of a video.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lloss.annotations.label_csv import labels_text
from lloss.files import atomic_folder, write_text
from lloss.selection.hashing import draw_ids
from lloss.training.training_data import TrainingData

TEST = 500
INITIAL, K, CYCLES = 50, 40, 3

IMBALANCE = 20
"""How many times as frequent as the rarest digit, 9, the most frequent one is, 0."""

FRAMES = 4
"""Images that hardly differ, of each digit of the pool."""

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
    """The pool and an even test set, always the same; images uint8 [N, 8, 8, 3]."""
    from sklearn.datasets import load_digits  # an extra

    bunch = load_digits()
    grey = (bunch.images * 255 / 16).round().astype(np.uint8)
    targets = bunch.target.astype(np.int64)
    random = np.random.default_rng(0)
    order = random.permutation(len(grey))
    test, rest = order[:TEST], order[TEST:]
    rows = np.concatenate([rest[targets[rest] == digit][:n] for digit, n in enumerate(_counts())])
    rows = random.permutation(np.repeat(rows, FRAMES))
    frames = np.stack([_frame(grey[row], random) for row in rows])
    classes = tuple(map(str, range(10)))
    return Digits(
        TrainingData(_in_color(frames), targets[rows], classes),
        TrainingData(_in_color(grey[test]), targets[test], classes),
    )


def _counts() -> list[int]:
    """How many images of each digit are in the pool, before they are multiplied."""
    return [round(120 * IMBALANCE ** (-digit / 9)) for digit in range(10)]


def _frame(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Shift an image [8, 8] by up to a pixel, and change its brightness."""
    row, column = random.integers(0, 3, 2)
    shifted = np.pad(image, 1)[row : row + 8, column : column + 8]
    return (shifted * random.uniform(0.8, 1.0)).astype(np.uint8)


def _in_color(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=3)


def name_of(row: int) -> str:
    """The pool's id of a row."""
    return f"{row:04d}.png"


def write_files(data: Digits, folder: Path) -> None:
    """Images in ``pool`` and ``test/CLASS``, ``labels.csv`` of the first, ``truth.csv`` of all."""
    for split, part in (("pool", data.pool), ("test", data.test)):
        with atomic_folder(folder / split) as aside:
            for row, (pixels, target) in enumerate(zip(part.images, part.targets)):
                inner = aside if split == "pool" else aside / str(target)
                inner.mkdir(exist_ok=True)
                Image.fromarray(pixels[..., 0]).save(inner / name_of(row))
    for name, rows in (("labels.csv", data.first), ("truth.csv", range(len(data.pool.images)))):
        write_text(folder / name, labels_text(oracle(data, map(name_of, rows))))


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
