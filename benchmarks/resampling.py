"""What it costs to resize otherwise than the trained weights want it.

    pip install timm
    python benchmarks/resampling.py --arrays FOLDER --weights WEIGHTS.pt

timm's record of EfficientNet-Lite0 asks for the bicubic filter, and for the middle 87.5 % of an
image; lloss follows it, unless ``--share 1 --resample bilinear`` say otherwise.
The network stays frozen; its last layer is fitted to 1,000 images of CIFAR-10 (as by ``lloss train
--freeze``) that are resized in each of these ways, and measured on 2,000 others, resized alike. In
the last row they are not: that is a finished network which lloss scores with. FOLDER and WEIGHTS.pt
are those of ``benchmarks/pretrained.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lloss.images.decode import ImageSpec, decode
from lloss.statistics.confidence_intervals import Z
from lloss.tasks.presets import resolve_settings
from lloss.training.frozen import settings_of_frozen, train_frozen
from lloss.training.trainer import predict
from lloss.training.training_data import TrainingData

PATH = click.Path(path_type=Path)
CLASSES = tuple(map(str, range(10)))
LABELED, TESTED = 1000, 2000
SIDE, SHARE = 96, 0.875

Resize = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def _bicubic(image: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def _middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    whole = round(SIDE / SHARE)
    start = (whole - SIDE) // 2
    return _bicubic(image, whole)[start : start + SIDE, start : start + SIDE]


def _usual(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return decode(image, ImageSpec(SIDE, SIDE))


PLAIN, RECORD = "bilinear, whole", "bicubic, 87.5 % (the record)"
WAYS: dict[str, Resize] = {PLAIN: _usual, "bicubic, whole": _bicubic, RECORD: _middle}


@click.command()
@click.option("--arrays", type=PATH, required=True, help="Folder of CIFAR-10 as NumPy arrays.")
@click.option("--weights", required=True, help="ImageNet's state dict.")
def main(arrays: Path, weights: str) -> None:
    """Fit and measure the last layer for each way to resize."""
    torch.set_num_threads(1)
    given: dict[str, Any] = {"model": "timm:tf_efficientnet_lite0", "weights": weights}
    settings = settings_of_frozen(resolve_settings("default", **given, size=SIDE, freeze=True))
    print("| fitted to | measured on | accuracy | difference (95 %) |\n|---|---|--:|--:|")
    usual: NDArray[np.bool_] | None = None
    for name, resize in WAYS.items():
        network = train_frozen(settings, _data(arrays, "train", LABELED, resize), "cpu").network
        for other in (name, PLAIN) if name == RECORD else (name,):
            test = _data(arrays, "test", TESTED, WAYS[other])
            passes = predict(network, settings, test.images)
            found = np.concatenate([forward.output.argmax(1).numpy() for _, forward in passes])
            right = found == np.array(test.targets)
            usual = right if usual is None else usual
            off = right.astype(float) - usual
            low, high = (off.mean() + side * off.std() / math.sqrt(len(off)) for side in (-Z, Z))
            shown = f"{off.mean():+.3f} ({low:+.3f} to {high:+.3f})" if off.any() else ""
            print(f"| {name} | {other} | {right.mean():.3f} | {shown} |", flush=True)


def _data(arrays: Path, split: str, count: int, resize: Resize) -> TrainingData:
    images = np.load(arrays / f"{split}_images.npy", mmap_mode="r")[:count]
    labels = np.load(arrays / f"{split}_labels.npy")[:count].astype(np.int64)
    return TrainingData(np.stack([resize(np.array(image)) for image in images]), labels, CLASSES)


if __name__ == "__main__":
    main()
