"""``lloss evaluate``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import click

from lloss.annotations import Problems
from lloss.cli.options import PATH, empty_option, labels_options, skip_bad_option
from lloss.data.empty_labels import settled
from lloss.errors import LabelError
from lloss.files import write_json
from lloss.statistics.confidence_intervals import Interval, decimals, in_words, usable
from lloss.tasks import get_task
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import Evaluation, evaluate_checkpoint, scatter


@click.command()
@click.argument("run", type=PATH)
@click.argument("data")
@labels_options
@skip_bad_option
@empty_option
@click.option("-o", "--out", type=PATH, help="Folder for the figures.  [default: the run's own]")
@click.option("--device", default="", help="cpu or cuda.  [default: cuda where there is one]")
@click.option("--flip-test", is_flag=True, help="Pose: average with the mirrored image's heatmaps.")
def evaluate(
    run: Path,
    data: str,
    labels: Path | None,
    data_root: Path,
    skip_bad: bool,
    empty: str,
    out: Path | None,
    device: str,
    flip_test: bool,
) -> None:
    """Measure a RUN on held-out labeled DATA.

    Prints the task's metric and how well the predicted loss ranks the true one, the entropy of
    the same network beside it, each with its 95 % interval; writes evaluation.json and
    evaluation.png.
    """
    out = out or (run if run.is_dir() else run.parent)
    checkpoint = load_checkpoint(run)  # a missing run is told before the images are looked for
    task, problems = get_task(checkpoint.settings.task), Problems(skip_bad)
    if flip_test:
        settings = dataclasses.replace(checkpoint.settings, flip_test=True)
        task.check_settings(settings)
        checkpoint = dataclasses.replace(checkpoint, settings=settings)
    task.check_empty(empty)
    with problems.explaining():
        labeled = settled(task.open(data, labels, data_root, problems), empty, problems)
    if len(labeled) < 2:
        raise LabelError(f"{data}: one image has no rank; give at least 2")
    found = evaluate_checkpoint(checkpoint, labeled, problems, device)
    for line in problems.lines():
        click.echo(line, err=True)
    write_json(out / "evaluation.json", found.as_dict())
    for line in _figures(found):
        click.echo(line)
    for line in found.as_dict()["warnings"]:
        click.echo(f"warning: {line}", err=True)
    if found.predicted_loss is not None:
        scatter(found, task.loss_unit, out / "evaluation.png")
        click.echo(f"picture            {out / 'evaluation.png'}")


WIDE = 29
"""Characters of a column: ``-0.1234 (-0.1235 to -0.1233)`` and a space."""

CHANCE = {"ranking_accuracy": 0.5, "spearman": 0.0, "lift": 1.0}


def _figures(found: Evaluation) -> Iterator[str]:
    yield f"images             {found.images}"
    if found.unseen:
        yield f"of unknown classes {found.unseen}, of no known loss: not ranked"
    named = {found.metric_name: found.metric, **found.figures}
    for name, value in named.items():
        count = found.images if name == found.metric_name else 0
        yield f"{name:19s}{in_words(value, found.intervals.get(name), count)}"
    yield from [*found.notes, *found.missed]
    ranking = found.images - found.unseen
    interval = found.intervals.get("mean_loss")
    yield f"mean loss          {in_words(found.mean_loss, interval, ranking)}"
    yield f"{'':19s}{'predicted loss':>{WIDE}s}{'entropy':>{WIDE}s}{'chance':>9s}"
    for name, expected in CHANCE.items():
        label = {"lift": "top-decile lift"}.get(name, name.replace("_", " "))
        columns = (
            _cell(getattr(scores, name, None), found.intervals.get(column, {}).get(name))
            for column, scores in (("head", found.head), ("entropy", found.entropy))
        )
        yield f"{label:19s}{''.join(f'{cell:>{WIDE}s}' for cell in columns)}{expected:9.1f}"


def _cell(value: float | None, interval: Interval | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    if interval is None or not usable(interval):
        return f"{value:.3f}"
    places = decimals(interval)
    return f"{value:.{places}f} ({interval[0]:.{places}f} to {interval[1]:.{places}f})"
