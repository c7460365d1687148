"""``lloss init`` and ``lloss next``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    PATH,
    Subset,
    chosen_settings,
    empty_option,
    skip_bad_option,
    training_settings,
)
from lloss.project.create import create_project
from lloss.project.project import STRATEGIES, load_project
from lloss.selection import SelectionSettings


@click.command()
@click.argument("project", type=PATH)
@click.option("--pool", required=True, help="Of images, as lloss score takes it.")
@click.option(
    "--labels", required=True, help="CSV with the columns id and label, or as --task; they grow."
)
@click.option("-k", "k", type=int, required=True, help="How many images to select a cycle.")
@click.option("--strategy", type=click.Choice(STRATEGIES), default="diverse", show_default=True)
@click.option("--subset", type=Subset(), default="0", help="Select from a random M or M% alone.")
@click.option("--holdout", type=float, help="Share of the labels kept to measure.  [default: 0.1]")
@click.option("--test", help="Labeled images to measure on, instead of --holdout.")
@click.option("--test-labels", help="CSV of labels for --test; without it, for images of the pool.")
@click.option("--warm-start", is_flag=True, help="Train each cycle from the weights before it.")
@skip_bad_option
@empty_option
@training_settings
def init(
    project: Path,
    pool: str,
    labels: str,
    k: int,
    strategy: str,
    subset: float,
    holdout: float | None,
    test: str | None,
    test_labels: str | None,
    warm_start: bool,
    skip_bad: bool,
    empty: str,
    preset: str,
    detach_head: bool,
    **given: Any,
) -> None:
    """Start a PROJECT: writes PROJECT/lloss.toml, after checking the labels against the pool."""
    if holdout is not None and (test or test_labels):
        raise click.UsageError("--holdout and a test set: give one of them to measure on")
    chosen_settings(preset, detach_head, given)
    values: dict[str, Any] = {"pool": pool, "labels": labels, "k": k, "strategy": strategy}
    SelectionSettings(k=k, strategy=strategy, subset=subset)  # says what is wrong with them
    values["subset"] = int(subset) if subset.is_integer() else subset
    values["seed"] = given["seed"] or 0
    if test or test_labels:
        values |= {name: v for name, v in (("test", test), ("test_labels", test_labels)) if v}
    else:
        values["holdout"] = 0.1 if holdout is None else holdout
    values["warm_start"] = warm_start
    if skip_bad:
        values["skip_bad"] = True
    if empty:
        values["empty"] = empty
    train = {"preset": preset, **{name: v for name, v in given.items() if v is not None}}
    if detach_head:
        train["gradient_stop"] = 0
    problems = Problems(skip_bad)
    with problems.explaining():
        made = create_project(project, values, train, problems)
    labeled = made.open_labels()
    made.note_classes(labeled, problems)
    for line in problems.lines():
        click.echo(line, err=True)
    classes = made.task.classes(labeled.labels)
    click.echo(
        f"{project / 'lloss.toml'}: {len(labeled)} labeled images of {len(classes)} "
        f"classes; now run: lloss next {shlex.quote(str(project))}"
    )


@click.command("next")
@click.argument("project", type=PATH)
@click.option("--at-most", is_flag=True, help="Select what is left when that is fewer than K.")
def next_cycle(project: Path, at_most: bool) -> None:
    """Run one cycle of a PROJECT: train, export, score, select.

    Interrupted, the same command goes on where it stopped.
    """
    from lloss.project import cycle  # brings torch

    opened = load_project(project)
    with opened.locked():
        outcome = cycle.next_cycle(opened, lambda line: click.echo(line, err=True), at_most)
    selected = outcome.folder / cycle.SELECTED
    if not outcome.fresh:
        labels = os.path.normpath(opened.path(opened.labels))
        click.echo(
            f"no new labels since cycle {outcome.summary.cycle:03d}: label the images of "
            f"{selected}, add them to {labels}, then run it again"
        )
        return
    click.echo(f"{selected}: {outcome.summary.selected} images to label next")
    click.echo(f"{outcome.folder / cycle.REPORT}")
