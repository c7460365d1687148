"""Is the epoch that is best on held-out images better than the last one?

    python benchmarks/early_stopping.py --arrays FOLDER
    python benchmarks/early_stopping.py --arrays FOLDER --model timm:tf_efficientnet_lite0 \
        --weights WEIGHTS.pt --size 64

FOLDER holds CIFAR-10 as ``train_images.npy``, ``train_labels.npy`` and the same of ``test``. Each
trial trains on nine tenths of its own 1,000 images with automatic settings, measures the tenth
after each epoch, and in the end compares epochs on the test images: the last, and the first of
the highest held-out accuracy or of the lowest held-out loss. ``benchmarks/pretrained.py`` writes
WEIGHTS.pt.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from lloss.images.decode import ImageSpec, decode
from lloss.tasks.presets import resolve_settings
from lloss.tasks.recipes import recipe_of
from lloss.training.decisions import epochs_of
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import TrainingData, steps_of

PATH = click.Path(path_type=Path)
CLASSES = tuple(map(str, range(10)))
HELD_OUT = 10  # One image of so many

T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26, 16: 2.13}
"""Student's 97.5 % quantile by the number of trials."""


@click.command()
@click.option("--arrays", type=PATH, required=True, help="Folder of CIFAR-10 as NumPy arrays.")
@click.option("--trials", type=click.Choice([str(n) for n in T]), default="8", show_default=True)
@click.option("--labeled", default=1000, show_default=True, help="Images of a trial.")
@click.option("--test", "tested", default=2000, show_default=True, help="Images to measure on.")
@click.option("--model", default="resnet10-cifar-narrow", show_default=True)
@click.option("--weights", default="none", show_default=True, help="A state dict to start from.")
@click.option("--size", default=32, show_default=True, help="Side of the input in pixels.")
def main(
    arrays: Path, trials: str, labeled: int, tested: int, model: str, weights: str, size: int
) -> None:
    """Train, and compare epochs of each run on the test images."""
    torch.set_num_threads(1)
    test = _data(arrays, "test", slice(tested), size)
    rows = []
    for trial in range(int(trials)):
        data = _data(arrays, "train", slice(trial * labeled, (trial + 1) * labeled), size)
        rows.append(_trial(data, test, model, weights, trial))
        click.echo(" ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), err=True)
    last = np.array([row["last"] for row in rows])
    print("| epoch | accuracy on the test images | difference from the last epoch (95 %) |")
    print("|---|--:|--:|")
    print(f"| last | {last.mean():.3f} | |")
    for name in ("highest accuracy", "lowest loss"):
        chosen = np.array([row[name] for row in rows])
        off, epochs = chosen - last, [row[f"epoch of {name}"] for row in rows]
        reach = T[len(rows)] * off.std(ddof=1) / math.sqrt(len(rows))
        shown = f"{off.mean():+.3f} ({off.mean() - reach:+.3f} to {off.mean() + reach:+.3f})"
        print(f"| {name}, median {np.median(epochs):g} | {chosen.mean():.3f} | {shown} |")


def _data(arrays: Path, split: str, rows: slice, size: int) -> TrainingData:
    images = np.load(arrays / f"{split}_images.npy", mmap_mode="r")[rows]
    labels = np.load(arrays / f"{split}_labels.npy")[rows].astype(np.int64)
    spec = ImageSpec(size, size)
    return TrainingData(np.stack([decode(image, spec) for image in images]), labels, CLASSES)


def _trial(
    data: TrainingData, test: TrainingData, model: str, weights: str, seed: int
) -> dict[str, float]:
    """Train once; accuracy on the test images of each choice of the epoch, and the epoch."""
    count = len(data) // HELD_OUT
    held, own = data.take(np.arange(count)), data.take(np.arange(count, len(data)))
    recipe = recipe_of(model, "auto", pretrained=weights != "none")
    steps = steps_of(len(own), recipe["batch_size"])
    recipe["epochs"], _ = epochs_of(recipe.pop("steps"), steps, recipe.pop("least_epochs"))
    given = {"model": model, "weights": weights, "size": data.images.shape[1], "seed": seed}
    trainer = Trainer(resolve_settings("default", **given, **recipe), own, "cpu")
    best: dict[str, float] = {}
    kept: dict[str, tuple[int, Any]] = {}
    while not trainer.finished:
        if trainer.advance() is None:
            continue
        accuracy, loss = _measured(trainer, held)
        for name, value in (("highest accuracy", accuracy), ("lowest loss", -loss)):
            if value > best.get(name, -math.inf):
                best[name] = value
                kept[name] = trainer.epoch, copy.deepcopy(trainer.model.state_dict())
    found = {"last": _measured(trainer, test)[0], "epochs": float(trainer.epoch)}
    for name, (epoch, state) in kept.items():
        trainer.model.load_state_dict(state)
        found |= {name: _measured(trainer, test)[0], f"epoch of {name}": float(epoch)}
    return found


def _measured(trainer: Trainer, data: TrainingData) -> tuple[float, float]:
    """Accuracy and mean loss."""
    passes = predict(trainer.model, trainer.settings, data.images)
    logits = torch.cat([forward.output for _, forward in passes])
    labels = torch.as_tensor(data.targets)
    right = (logits.argmax(1) == labels).float().mean()
    return float(right), float(torch.nn.functional.cross_entropy(logits, labels))


if __name__ == "__main__":
    main()
