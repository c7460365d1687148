"""``lloss init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, get_args

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    PATH,
    empty_option,
    print_notes,
    skip_bad_option,
    subset_option,
    training_settings,
)
from lloss.project.create import create_project
from lloss.project.project import CyclePrecision, CycleStrategy
from lloss.training.holdout import AUTOMATIC_SHARE


@click.command("init")
@click.argument("project", type=PATH)
@click.option("--pool", required=True, help="Images, in any form that lloss score takes.")
@click.option(
    "--labels", required=True, help="CSV with the columns id and label, or the format of --task."
)
@click.option(
    "-k",
    "k",
    type=int,
    show_default="a quarter of the labels, 10 to 500",
    help="Images to select per cycle.",
)
@click.option("--strategy", type=click.Choice(get_args(CycleStrategy)), default="diverse")
@subset_option
@click.option(
    "--precision",
    type=click.Choice(get_args(CyclePrecision)),
    default="fp32",
    help="auto: score large pools in int8 or fp16, if that is faster and ranks them as fp32 does.",
)
@click.option(
    "--holdout",
    type=float,
    show_default="50 labels or a tenth, from 150 labels on",
    help="Share of the labels kept for measuring.",
)
@click.option("--test", default="", help="Labeled images to measure on, instead of --holdout.")
@click.option(
    "--test-labels", default="", help="Labels of --test; without --test, of images of the pool."
)
@click.option("--warm-start", is_flag=True, help="Start each training from the previous weights.")
@skip_bad_option
@empty_option
@training_settings
def command(
    project: Path,
    k: int | None,
    holdout: float | None,
    test: str,
    test_labels: str,
    skip_bad: bool,
    empty: str,
    preset: str,
    train: dict[str, Any],
    **values: Any,
) -> None:
    """Start a PROJECT: check the labels against the pool and write PROJECT/lloss.toml."""
    if holdout is not None and (test or test_labels):
        raise click.UsageError("give --holdout or a test set, not both")
    values["seed"] = train.get("seed", 0)
    if test or test_labels:
        measured_on: dict[str, Any] = {"test": test, "test_labels": test_labels}
    else:
        measured_on = {"holdout": AUTOMATIC_SHARE if holdout is None else holdout}
    optional = {**measured_on, "skip_bad": skip_bad, "empty": empty}
    values |= {name: value for name, value in optional.items() if value or name == "holdout"}
    if k is not None:
        values["k"] = k
    problems = Problems(skip_bad)
    with problems.explaining():
        created = create_project(project, values, {"preset": preset, **train}, problems)
    print_notes(*problems.lines())
    labeled = created.open_labels()
    classes = created.task.classes(labeled.labels)
    click.echo(
        f"{project / 'lloss.toml'}: {len(labeled)} labeled images of {len(classes)} "
        f"classes; now run: lloss next {shlex.quote(str(project))}"
    )
