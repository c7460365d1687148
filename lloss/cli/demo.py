"""``lloss demo``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import click

from lloss.cli.options import PATH
from lloss.errors import LlossError, ProjectError
from lloss.files import write_error
from lloss.project.demo_data import (
    CYCLES,
    FRAMES,
    IMBALANCE,
    INITIAL,
    SETTINGS,
    Digits,
    K,
    digits,
    label,
    write_files,
)

# More threads do not help on 8×8 images, and the printed results depend on their number.
_ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}

TRIALS = 6
"""Repetitions of the comparison with random selection."""


@click.command("demo")
@click.argument("folder", type=PATH, default=Path("demo"))
def command(folder: Path) -> None:
    """Run the whole loop on scikit-learn's digits in FOLDER; an oracle labels the images.

    Three cycles of lloss next, then paired trials of its selection against random selection.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ProjectError(f"{folder}: not empty; remove it, or choose another folder")
    data = digits()
    try:
        _run_loop(data, folder)
    except (LlossError, OSError) as error:
        if isinstance(error, BrokenPipeError) or not folder.exists():
            raise
        # It cannot go on in a folder that is partly filled.
        what = write_error(error, folder) if isinstance(error, OSError) else error
        raise LlossError(f"{what}; remove {folder} before you run the demo again") from error


def _run_loop(data: Digits, folder: Path) -> None:
    write_files(data, folder)
    click.echo(
        f"{folder / 'pool'}: {len(data.pool.images)} images of digits, {INITIAL} of them labeled; "
        f"{len(data.test.images)} more to measure on.\nAs in real pools, classes are uneven (0 is "
        f"{IMBALANCE} times as frequent as 9), and images repeat: {FRAMES} that hardly differ of "
        "each.\n"
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
    _print_cycles(project)
    click.echo(f"\nIs that better than random selection? {TRIALS} paired trials:")
    _run("simulate", folder / "pool", "--labels", folder / "truth.csv", "--test", folder / "test",
         "--methods", "random,auto", "--initial", INITIAL, "-k", K, "--cycles", CYCLES + 1,
         "--trials", TRIALS, "-o", folder / "trials", *options)  # fmt: skip
    click.echo(f"\nReport of the project: {(_cycle(project, CYCLES) / 'report.html').resolve()}")


def _run(*words: object) -> None:
    command = [str(word) for word in words]
    click.secho(f"$ lloss {shlex.join(command)}", bold=True)
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "lloss", *command], check=False, env=_ONE_THREAD)
    if done.returncode:
        raise LlossError(f"the demo's `lloss {command[0]}` failed; see the line above")


def _cycle(project: Path, number: int) -> Path:
    return project / "cycles" / f"{number:03d}"


def _print_cycles(project: Path) -> None:
    rows = (_cycle(project, CYCLES) / "selected.csv").read_text(encoding="utf-8").splitlines()[1:]
    click.echo(f"\nLabel these {len(rows)} next:")
    click.echo(" ".join(row.partition(",")[0] for row in rows) + "\n")
    click.echo("labeled   accuracy   pairs ordered right by the head (by entropy; chance .5)")
    for cycle in range(1, CYCLES + 1):
        summary = json.loads((_cycle(project, cycle) / "summary.json").read_text(encoding="utf-8"))
        measured = summary["evaluation"]
        click.echo(
            f"{summary['labeled']:7d}   {measured['accuracy']:8.3f}   "
            f"{measured['head']['ranking_accuracy']:.3f} "
            f"({measured['entropy']['ranking_accuracy']:.3f})"
        )
