"""Which settings deserve to be the default: strategies compared at equal budget.

    python benchmarks/strategies.py digits --trials 3
    python benchmarks/strategies.py cifar --arrays FOLDER --trials 3

``digits`` needs scikit-learn and nothing else. ``cifar`` reads ``train_images.npy``,
``train_labels.npy``, ``test_images.npy`` and ``test_labels.npy`` of FOLDER, and uses a pool of
10,000 and a test set of 5,000. Each trial starts every strategy from the same labeled set.
One JSON line a cycle goes to ``--out``; a table of means is printed at the end.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch

from lloss.project.demo_data import SETTINGS, digits
from lloss.simulation.strategy_trials import ENTROPY, RANDOM, Experiment, Method, simulate
from lloss.tasks.presets import resolve_settings
from lloss.training.training_data import TrainingData

PAPER = {"head_loss": "margin", "head_summary": False}


def methods(epochs: int) -> list[Method]:
    stop = epochs * 6 // 10
    paper = {**PAPER, "gradient_stop": stop}
    joint, detached = {"gradient_stop": stop}, {"gradient_stop": 0}
    return [
        RANDOM,
        ENTROPY,
        Method("paper, top", paper),
        Method("soft joint, top", joint),
        Method("soft joint, top of half", joint, subset=0.5),
        Method("soft joint, diverse", joint, how="diverse"),
        Method("soft joint, diverse of half", joint, how="diverse", subset=0.5),
        Method("soft detached, diverse", detached, how="diverse"),
        Method("soft detached, diverse of half", detached, how="diverse", subset=0.5),
        Method("entropy, diverse", {"head": False}, how="diverse", by="entropy"),
    ]


def cifar(folder: Path) -> tuple[TrainingData, TrainingData]:
    classes = tuple(map(str, range(10)))
    sets = []
    for split, count in (("train", 10_000), ("test", 5_000)):
        images = np.load(folder / f"{split}_images.npy", mmap_mode="r")[:count]
        labels = np.load(folder / f"{split}_labels.npy")[:count].astype(np.int64)
        sets.append(TrainingData(np.ascontiguousarray(images), labels, classes))
    return sets[0], sets[1]


@click.command()
@click.argument("data", type=click.Choice(["digits", "cifar"]))
@click.option("--arrays", type=click.Path(path_type=Path), help="CIFAR-10 as .npy files.")
@click.option("--trials", default=3)
@click.option("--first", default=0, help="Number of the first trial.")
@click.option("--epochs", default=0, help="Passes a training; 0 for 60 (digits) or 40 (cifar).")
@click.option("--threads", default=1, help="The figures depend on it in their last digits.")
@click.option("--only", multiple=True, help="Names of strategies to run.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data: str,
    arrays: Path | None,
    trials: int,
    first: int,
    epochs: int,
    threads: int,
    only: tuple[str, ...],
    out: Path | None,
) -> None:
    """Compare strategies."""
    torch.set_num_threads(threads)
    if data == "digits":
        pool, test = digits().pool, digits().test
        budget = {"initial": 50, "k": 40, "cycles": 6}
        epochs = epochs or SETTINGS["epochs"]
        settings = resolve_settings("default", **{**SETTINGS, "epochs": epochs})
    else:
        if arrays is None:
            raise click.UsageError("cifar needs --arrays FOLDER")
        pool, test = cifar(arrays)
        budget = {"initial": 1000, "k": 500, "cycles": 4}
        epochs = epochs or 40
        settings = resolve_settings(
            "default",
            model="resnet10-cifar-narrow",
            size=32,
            epochs=epochs,
            batch_size=64,
            amp="bf16",
        )
    experiment = Experiment(pool, test, **budget)
    table = defaultdict(list)
    for trial in range(first, first + trials):
        for method in methods(epochs):
            if only and method.name not in only:
                continue
            results = simulate(experiment, settings, method, trial)
            table[method.name].append([r.metric for r in results])
            last = results[-1]
            click.echo(
                f"{trial} {method.name:32s} "
                + " ".join(f"{r.metric:.3f}" for r in results)
                + (f"  head {last.head.spearman:.3f}" if last.head else "  head  –   ")
                + f"  entropy {last.entropy.spearman:.3f}"
            )
            if out:
                with out.open("a") as file:
                    for r in results:
                        row = {
                            "data": data,
                            "trial": trial,
                            "strategy": method.name,
                            "epochs": epochs,
                            **asdict(r),
                        }
                        file.write(json.dumps(row) + "\n")
    click.echo("\nmean of the trials")
    for name, runs in table.items():
        means = np.mean(runs, 0)
        click.echo(
            f"{name:34s}"
            + " ".join(f"{m:.3f}" for m in means)
            + f"   mean after the first {means[1:].mean():.4f}"
        )


if __name__ == "__main__":
    main()
