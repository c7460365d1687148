"""``lloss evaluate``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    PATH,
    empty_option,
    labels_options,
    print_notes,
    skip_bad_option,
    training_device_option,
)
from lloss.data.labeled_set import drop_empty
from lloss.errors import LabelError
from lloss.files import write_json
from lloss.runtime.torchrun_process import torchrun_process
from lloss.statistics.confidence_intervals import Interval, decimals, in_words, usable
from lloss.statistics.loss_unit import LossUnit
from lloss.tasks import get_task
from lloss.text.markup import loss
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import Evaluation, evaluate_checkpoint


@click.command("evaluate")
@click.argument("run", type=PATH)
@click.argument("data")
@labels_options
@skip_bad_option
@empty_option
@click.option("-o", "--out", type=PATH, show_default="RUN", help="Folder for the results.")
@training_device_option
def command(
    run: Path,
    data: str,
    labels: Path | None,
    data_root: Path,
    skip_bad: bool,
    empty: str,
    out: Path | None,
    device: str,
) -> None:
    """Measure a RUN on held-out labeled DATA.

    Prints the task's metric and how well the predicted loss ranks the true one, next to the entropy
    of the same network, with 95 % intervals; then the unit of the predicted loss, and how true it
    is. Writes evaluation.json, from which lloss export takes the unit.
    """
    out = out or (run if run.is_dir() else run.parent)
    checkpoint = load_checkpoint(run)  # fails before the images are read
    task, problems = get_task(checkpoint.settings.task), Problems(skip_bad)
    task.check_empty(empty)
    with problems.explaining():
        labeled = drop_empty(task.open(data, labels, data_root, problems), empty, problems)
    if len(labeled) < 2:
        raise LabelError(f"{data}: one image cannot be ranked; give at least 2")
    evaluation = evaluate_checkpoint(checkpoint, labeled, problems, device, torchrun_process())
    result = evaluation.as_dict()
    print_notes(*problems.lines())
    write_json(out / "evaluation.json", result)
    for line in _table(evaluation):
        click.echo(line)
    print_notes(*(f"warning: {line}" for line in result["warnings"]))


COLUMN = 29
"""Width of a column: ``-0.1234 (-0.1235 to -0.1233)`` and a space."""

CHANCE = {"ranking_accuracy": 0.5, "spearman": 0.0, "lift": 1.0}


def _table(evaluation: Evaluation) -> Iterator[str]:
    intervals = evaluation.intervals
    yield f"images             {evaluation.images}"
    if evaluation.unseen:
        yield f"of unknown classes {evaluation.unseen}, without a loss: not ranked"
    yield _row(
        evaluation.metric_name,
        in_words(evaluation.metric, intervals.get(evaluation.metric_name), evaluation.images),
    )
    for name, value in evaluation.figures.items():
        yield _row(name, in_words(value, intervals.get(name), 0))
    yield from [*evaluation.notes, *evaluation.missed]
    ranked = evaluation.images - evaluation.unseen
    mean = in_words(evaluation.mean_loss, intervals.get("mean_loss"), ranked)
    yield _row("mean loss", mean)
    yield _row("", f"{'predicted loss':>{COLUMN}s}{'entropy':>{COLUMN}s}{'chance':>9s}")
    for name, chance in CHANCE.items():
        cells = (
            _cell(getattr(ranking, name, None), intervals.get(column, {}).get(name))
            for column, ranking in (("head", evaluation.head), ("entropy", evaluation.entropy))
        )
        label = "top-decile lift" if name == "lift" else name.replace("_", " ")
        yield _row(label, "".join(f"{cell:>{COLUMN}s}" for cell in cells) + f"{chance:9.1f}")
    if evaluation.unit is not None:
        yield from _calibration(evaluation.unit)


def _calibration(unit: LossUnit) -> Iterator[str]:
    """The unit, and true against predicted losses, the lowest predictions first."""
    yield _row("predicted loss", str(unit))
    if not unit.calibration:
        return
    yield _row("", f"{'images':>10s}{'predicted':>14s}{'true mean':>14s}{'standard error':>18s}")
    for number, each in enumerate(unit.calibration):
        name = "lowest predictions" if not number else ""
        name = "highest" if number == len(unit.calibration) - 1 else name
        true = f"{loss(each.true):>14s}{loss(each.error):>18s}"
        yield _row(name, f"{each.images:>10,}{loss(each.predicted):>14s}{true}")


def _row(name: str, value: str) -> str:
    return f"{name:19s}{value}"


def _cell(value: float | None, interval: Interval | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    if interval is None or not usable(interval):
        return f"{value:.3f}"
    places = decimals(interval)
    return f"{value:.{places}f} ({interval[0]:.{places}f} to {interval[1]:.{places}f})"
