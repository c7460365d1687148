"""Is the epoch that is best on held-out images better than the last one?

    python benchmarks/early_stopping.py --arrays FOLDER --out ROWS.jsonl
    python benchmarks/early_stopping.py --arrays FOLDER --out ROWS.jsonl \
        --model timm:tf_efficientnet_lite0 --weights WEIGHTS.pt --size 64

FOLDER holds CIFAR-10 as ``train_images.npy``, ``train_labels.npy`` and the same of ``test``. Each
trial trains on nine tenths of its own 1,000 images with automatic settings, measures the tenth
after each epoch, and in the end compares epochs on the test images: the last, and the first of
the highest held-out accuracy or of the lowest held-out loss. There is no head: by default its
gradient does not reach the network. ``benchmarks/pretrained.py`` writes WEIGHTS.pt. ROWS.jsonl
keeps a row as each trial ends; one that is there for the same settings is not computed again.
"""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from lloss.images.decode import ImageSpec, decode
from lloss.statistics.paired_trials import mean_interval
from lloss.tasks.presets import resolve_settings
from lloss.tasks.recipes import recipe_of
from lloss.tasks.train_settings import PLAIN
from lloss.training.decisions import epochs_of
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import TrainingData, steps_of

PATH = click.Path(path_type=Path)
CLASSES = tuple(map(str, range(10)))
HELD_OUT = 10  # One image of so many
CHOICES = ("highest accuracy", "lowest loss")  # Of the held-out images


@click.command()
@click.option("--arrays", type=PATH, required=True, help="Folder of CIFAR-10 as NumPy arrays.")
@click.option("--out", type=PATH, required=True, help="JSON lines, to go on from.")
@click.option("--trials", default=8, show_default=True)
@click.option("--labeled", default=1000, show_default=True, help="Images of a trial.")
@click.option("--test", "tested", default=2000, show_default=True, help="Images to measure on.")
@click.option("--model", default="resnet10-cifar-narrow", show_default=True)
@click.option("--weights", default="none", show_default=True, help="A state dict to start from.")
@click.option("--size", default=32, show_default=True, help="Side of the input in pixels.")
@click.option("--epochs", default=0, help="Instead of the automatic number.")
def main(arrays: Path, out: Path, trials: int, tested: int, **given: Any) -> None:
    """Train, and compare epochs of each run on the test images."""
    torch.set_num_threads(1)
    settings = {"tested": tested, **given}
    lines = out.read_text("utf-8").splitlines() if out.exists() else []
    found = [row for row in map(json.loads, lines) if row["settings"] == settings]
    rows = {row["trial"]: row for row in found if row["trial"] < trials}
    labeled, size = given["labeled"], given["size"]
    test = _data(arrays, "test", slice(tested), size)
    for trial in range(trials):
        if trial in rows:
            continue
        began = time.process_time()
        data = _data(arrays, "train", slice(trial * labeled, (trial + 1) * labeled), size)
        row = {"trial": trial, "settings": settings, **_trial(data, test, given, trial)}
        rows[trial] = {**row, "seconds": round(time.process_time() - began, 1)}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[trial]) + "\n")
        click.echo(json.dumps(rows[trial]), err=True)
    print(table(list(rows.values())))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean accuracies, and paired differences with Student's 95 % interval."""
    last = np.array([row["last"] for row in rows])
    seconds = np.mean([row["seconds"] for row in rows])
    lines = [
        f"{len(rows)} trials of {rows[0]['epochs']:g} epochs, {seconds:.0f} s of a core each",
        "",
        "| epoch | accuracy on the test images | difference from the last epoch (95 %) |",
        "|---|--:|--:|",
        f"| last | {last.mean():.3f} | |",
    ]
    for name in CHOICES:
        chosen = np.array([row[name] for row in rows])
        low, high = mean_interval(chosen - last)
        within = f" ({low:+.3f} to {high:+.3f})" if math.isfinite(low) else ""
        epoch = np.median([row[f"epoch of {name}"] for row in rows])
        difference = f"{(chosen - last).mean():+.3f}{within}"
        lines.append(f"| {name}, median {epoch:g} | {chosen.mean():.3f} | {difference} |")
    return "\n".join(lines)


def _data(arrays: Path, split: str, rows: slice, size: int) -> TrainingData:
    images = np.load(arrays / f"{split}_images.npy", mmap_mode="r")[rows]
    labels = np.load(arrays / f"{split}_labels.npy")[rows].astype(np.int64)
    spec = ImageSpec(size, size)
    return TrainingData(np.stack([decode(image, spec) for image in images]), labels, CLASSES)


def _trial(
    data: TrainingData, test: TrainingData, given: dict[str, Any], seed: int
) -> dict[str, float]:
    """Train once; accuracy on the test images of each choice of the epoch, and the epoch."""
    count = len(data) // HELD_OUT
    held, own = data.take(np.arange(count)), data.take(np.arange(count, len(data)))
    model, weights = given["model"], given["weights"]
    recipe = recipe_of(model, "auto", pretrained=weights != "none")
    steps = steps_of(len(own), recipe["batch_size"])
    epochs, _ = epochs_of(recipe.pop("steps"), steps, recipe.pop("least_epochs"))
    recipe |= {**PLAIN, "epochs": given["epochs"] or epochs, "head": False, "seed": seed}
    chosen = resolve_settings("default", model=model, weights=weights, size=given["size"], **recipe)
    trainer = Trainer(chosen, own, "cpu")
    best: dict[str, float] = {}
    kept: dict[str, tuple[int, Any]] = {}
    while not trainer.finished:
        if trainer.advance() is None:
            continue
        accuracy, loss = _measured(trainer, held)
        for name, value in zip(CHOICES, (accuracy, -loss), strict=True):
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
