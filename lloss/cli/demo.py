"""``lloss demo``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

from lloss.cli.options import PATH
from lloss.errors import LlossError, ProjectError
from lloss.project.demo_data import CYCLES, INITIAL, SETTINGS, TEST, K, digits, label, write_files
from lloss.simulation.strategy_trials import RANDOM, Experiment, simulate
from lloss.tasks.presets import resolve_settings

# More threads do not help on 8×8 images, and the printed results depend on their number.
_ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}

TRIALS = 3
"""Runs of random selection to compare with."""


@click.command("demo")
@click.argument("folder", type=PATH, default=Path("demo"))
def command(folder: Path) -> None:
    """Run the whole loop on scikit-learn's digits in FOLDER; an oracle labels the images.

    Three cycles of lloss next, then the same budget spent on randomly selected images.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ProjectError(f"{folder}: not empty; remove it, or choose another folder")
    data = digits()
    write_files(data, folder)
    click.echo(
        f"{folder / 'pool'}: {len(data.pool.images)} images of digits, {INITIAL} of them labeled; "
        f"{len(data.test.images)} more to measure on\n"
    )
    project, labels = folder / "project", folder / "labels.csv"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    _run("init", project, "--pool", folder / "pool", "--labels", labels,
         "--test", folder / "test", "-k", K, *options)  # fmt: skip
    for cycle in range(1, CYCLES + 1):
        _run("next", project)
        if cycle < CYCLES:
            label(data, _cycle(project, cycle) / "selected.csv", labels)
            click.echo(f"… an oracle labels the {K} images\n")
    click.echo(f"… the same budget with random selection, {TRIALS} times")
    _print_results(project, _random_accuracies())


def _run(*words: object) -> None:
    command = [str(word) for word in words]
    click.secho(f"$ lloss {shlex.join(command)}", bold=True)
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "lloss", *command], check=False, env=_ONE_THREAD)
    if done.returncode:
        raise LlossError(f"the demo's `lloss {command[0]}` failed; see the line above")


def _cycle(project: Path, number: int) -> Path:
    return project / "cycles" / f"{number:03d}"


def _random_accuracies() -> Any:
    """Return the accuracy with random selection, [TRIALS, CYCLES]."""
    torch.set_num_threads(1)
    data = digits()
    experiment = Experiment(data.pool, data.test, INITIAL, K, CYCLES, first=data.first)
    settings = resolve_settings("default", **SETTINGS)
    trials = [
        simulate(experiment, settings, RANDOM, trial)
        for trial in tqdm(range(TRIALS), "random selection", disable=None)
    ]
    return np.array([[result.metric for result in trial] for trial in trials])


def _print_results(project: Path, random: Any) -> None:
    last = _cycle(project, CYCLES)
    rows = (last / "selected.csv").read_text(encoding="utf-8").splitlines()[1:]
    click.echo(f"\nLabel these {len(rows)} next:")
    click.echo(" ".join(row.partition(",")[0] for row in rows) + "\n")
    click.echo(
        f"Accuracy on {TEST} held-out images: one run of learning loss, {TRIALS} of random "
        f"selection (mean, lowest–highest).\nAt {INITIAL} labels nothing has been selected yet: "
        "differences there are chance."
    )
    click.echo("labeled   learning loss   random selection          ranking accuracy of the head")
    for cycle, accuracies in enumerate(random.T, 1):
        summary = json.loads((_cycle(project, cycle) / "summary.json").read_text(encoding="utf-8"))
        measured = summary["evaluation"]
        click.echo(
            f"{summary['labeled']:7d}   {measured['accuracy']:13.3f}   "
            f"{accuracies.mean():.3f} ({accuracies.min():.3f}–{accuracies.max():.3f})      "
            f"{measured['head']['ranking_accuracy']:.3f} (entropy "
            f"{measured['entropy']['ranking_accuracy']:.3f}, chance .5)"
        )
    click.echo(f"\nReport: {(last / 'report.html').resolve()}")
