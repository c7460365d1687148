"""``lloss next``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lloss.cli.options import PATH, print_notes
from lloss.project.cycle import next_cycle
from lloss.project.cycle_output import REPORT
from lloss.project.picks_file import SELECTED
from lloss.project.project_file import load_project
from lloss.text.counts import counted


@click.command("next")
@click.argument("project", type=PATH)
@click.option("--at-most", is_flag=True, help="If fewer than K images are left, select them all.")
def command(project: Path, at_most: bool) -> None:
    """Run one cycle of a PROJECT: train, export, score, select.

    After an interruption the same command resumes the cycle.
    """
    opened = load_project(project)
    with opened.locked():
        outcome = next_cycle(opened, print_notes, at_most)
    selected = outcome.folder / SELECTED
    if not outcome.fresh:
        labels = os.path.normpath(opened.path(opened.labels))
        number = outcome.summary.cycle
        since = f"no new labels since cycle {number:03d}" if number else "nothing is labeled yet"
        click.echo(
            f"{since}: label the images of {selected}, add them to {labels}, then run it again"
        )
        return
    click.echo(f"{selected}: {counted(outcome.summary.selected, 'image')} to label next")
    click.echo(f"{outcome.folder / REPORT}")
