from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lloss.errors import LlossError
from lloss.project.demo_data import INITIAL, Digits, write_files
from lloss.training.training_data import TrainingData

from ..small_disk import fill


def data(count: int) -> TrainingData:
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 1), np.uint8)
    targets = np.arange(count, dtype=np.int64) % 10
    return TrainingData(images.repeat(3, axis=3), targets, tuple(map(str, range(10))))


def test_images_and_labels_are_written(tmp_path: Path) -> None:
    digits = Digits(data(60), data(20))
    write_files(digits, tmp_path / "demo")
    with (tmp_path / "demo/labels.csv").open() as file:
        labels = {row["id"]: row["label"] for row in csv.DictReader(file)}
    assert len(labels) == INITIAL
    for id, label in labels.items():
        row = int(Path(id).stem)
        assert label == str(digits.pool.targets[row])
        with Image.open(tmp_path / "demo/pool" / id) as image:
            assert np.array_equal(np.asarray(image), digits.pool.images[row, ..., 0])
    names = {path.relative_to(tmp_path / "demo/test").as_posix() for path in
             (tmp_path / "demo/test").glob("*/*")}  # fmt: skip
    assert names == {f"{row % 10}/{row:04d}.png" for row in range(20)}


def test_a_full_disk_is_named_and_leaves_nothing(disk: Path) -> None:
    digits, demo = Digits(data(60), data(20)), disk / "demo"
    (disk / "spare").write_bytes(bytes(100_000))
    fill(disk)
    (disk / "spare").unlink()  # for some of the images
    with pytest.raises(LlossError, match=r"pool: the disk is full; free some space and run it ag"):
        write_files(digits, demo)
    assert not list(demo.iterdir())
    (disk / "ballast").unlink()
    write_files(digits, demo)
    assert len(list((demo / "pool").iterdir())) == 60
