"""``lloss init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, get_args

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    NAMES,
    PATH,
    empty_option,
    print_notes,
    skip_bad_option,
    subset_option,
    training_settings,
)
from lloss.project.choice_settings import BY
from lloss.project.create import create_project
from lloss.project.labeling_tasks import FORMATS
from lloss.project.project import AUTOMATIC_DISTANCE, CyclePrecision, Project
from lloss.selection.automatic import AUTO
from lloss.selection.strategies import strategy_names
from lloss.text.counts import counted
from lloss.training.holdout import AUTOMATIC_SHARE


@click.command("init")
@click.argument("project", type=PATH)
@click.option("--pool", required=True, help="Images, in any form that lloss score takes.")
@click.option(
    "--labels",
    default="",
    show_default="a file in PROJECT, to be written",
    help="CSV with the columns id and label, or the format of --task. It may not exist yet: then "
    "the first images are chosen without training.",
)
@click.option(
    "-k",
    "k",
    type=int,
    show_default="a quarter of the labels, 10 to 500; 50 without labels",
    help="Images to select per cycle.",
)
@click.option(
    "--strategy",
    type=click.Choice(strategy_names()),
    default="herding",
    help="How to choose, see lloss select --help; herding: images that represent those of high "
    "loss, beside the labeled ones.",
)
@click.option(
    "--by",
    type=click.Choice(BY),
    default=AUTO,
    help="What weights images; auto: loss, entropy or neither, as measured in each cycle.",
)
@click.option(
    "--balance", default="", help="Spread K over predicted classes (predicted), or a column."
)
@click.option(
    "--class-weight",
    type=click.Choice(["balanced", "none"]),
    show_default="balanced for a classifier with herding or coverage, if nothing else balances",
    help="balanced: images of rare predicted classes weigh more.",
)
@click.option(
    "--metadata", default="", help="CSV or Parquet with the columns id and that of --balance."
)
@click.option(
    "--min-distance",
    type=float,
    default=AUTOMATIC_DISTANCE,
    show_default="as near as changed copies of labeled images",
    help="Pass over images nearer than this to another pick or a labeled one, by the cosine "
    "distance of their embeddings; 0: none.",
)
@click.option(
    "--monitor",
    type=float,
    default=0.0,
    metavar="SHARE",
    help="Draw this share of K at random, as 0.1: a test set that grows, if there is no other.",
)
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
@click.option(
    "--formats",
    type=NAMES,
    default="",
    metavar="NAMES",
    help=f"Task lists to write in each cycle, separated by commas: {', '.join(FORMATS)}.",
)
@skip_bad_option
@empty_option
@training_settings
def command(
    project: Path,
    k: int | None,
    holdout: float | None,
    test: str,
    test_labels: str,
    balance: str,
    class_weight: str | None,
    metadata: str,
    monitor: float,
    formats: tuple[str, ...],
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
    optional = {
        **measured_on,
        "balance": balance,
        "metadata": metadata,
        "monitor": monitor,
        "formats": list(formats),
        "skip_bad": skip_bad,
        "empty": empty,
    }
    values |= {name: value for name, value in optional.items() if value or name == "holdout"}
    if k is not None:
        values["k"] = k
    if class_weight is not None:
        values["class_weight"] = "" if class_weight == "none" else class_weight
    problems, folder = Problems(skip_bad), shlex.quote(str(project))
    with problems.explaining():
        created = create_project(project, values, {"preset": preset, **train}, problems)
    print_notes(*problems.lines())
    click.echo(f"{project / 'lloss.toml'}: {_what_next(created)}: lloss next {folder}")


def _what_next(project: Project) -> str:
    if project.unlabeled():
        first = counted(project.k, "image is", "images are")
        return f"no labels yet, the first {first} chosen without training; now run"
    labeled = project.open_labels()
    classes = project.task.classes(labeled.labels)
    of = counted(len(classes), "class", "classes")
    return f"{counted(len(labeled), 'labeled image')} of {of}; now run"
