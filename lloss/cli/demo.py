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
from lloss.simulation.loop import RANDOM, Experiment, simulate
from lloss.tasks.presets import resolve_settings

# Images of 8×8 pixels give a second thread nothing to do, and the figures depend on their number.
_ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}

TRIALS = 3
"""Random selections to compare with; one alone would be luck."""


@click.command()
@click.argument("folder", type=PATH, default=Path("demo"))
def demo(folder: Path) -> None:
    """Run the whole job on scikit-learn's digits in FOLDER, with an oracle for a labeler.

    Three cycles of `lloss next`, then the same budget spent on randomly selected images.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ProjectError(f"{folder}: is not empty; remove it, or choose another folder")
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
    _tell(project, _random_runs())


def _run(*words: object) -> None:
    command = [str(word) for word in words]
    click.secho(f"$ lloss {shlex.join(command)}", bold=True)
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "lloss", *command], check=False, env=_ONE_THREAD)
    if done.returncode:
        raise LlossError(f"the demo's `lloss {command[0]}` failed; see the line above")


def _cycle(project: Path, number: int) -> Path:
    return project / "cycles" / f"{number:03d}"


def _random_runs() -> Any:
    """Accuracy of each trial and cycle with random selection, [TRIALS, CYCLES]."""
    torch.set_num_threads(1)
    data = digits()
    experiment = Experiment(data.pool, data.test, INITIAL, K, CYCLES, first=data.first)
    settings = resolve_settings("default", **SETTINGS)
    found = []
    with tqdm(total=TRIALS * CYCLES, desc="random selection", disable=None) as bar:
        for trial in range(TRIALS):
            results = simulate(experiment, settings, RANDOM, trial, lambda _: _advance(bar))
            found.append([result.metric for result in results])
    return np.array(found)


def _advance(bar: Any) -> None:
    bar.update()


def _tell(project: Path, random: Any) -> None:
    last = _cycle(project, CYCLES)
    ids = (last / "selected.csv").read_text(encoding="utf-8").splitlines()[1:]
    names = [line.partition(",")[0] for line in ids]
    click.echo(f"\nLabel these {len(names)} next:")
    click.echo(" ".join(names) + "\n")
    click.echo(
        f"Accuracy on {TEST} held-out images: one run of learning loss, {TRIALS} of random "
        f"selection (mean, lowest–highest).\nAt {INITIAL} labels nothing has been selected yet: "
        "what differs there is chance."
    )
    click.echo("labeled   learning loss   random selection          ranking accuracy of the head")
    for cycle in range(1, CYCLES + 1):
        path = _cycle(project, cycle) / "summary.json"
        summary = json.loads(path.read_text(encoding="utf-8"))
        found, runs = summary["evaluation"], random[:, cycle - 1]
        click.echo(
            f"{summary['labeled']:7d}   {found['accuracy']:13.3f}   "
            f"{runs.mean():.3f} ({runs.min():.3f}–{runs.max():.3f})      "
            f"{found['head']['ranking_accuracy']:.3f} (entropy "
            f"{found['entropy']['ranking_accuracy']:.3f}, chance .5)"
        )
    click.echo(f"\nReport: {(last / 'report.html').resolve()}")
