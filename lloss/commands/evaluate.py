"""``lloss evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from lloss.annotations import Problems
from lloss.annotations.empties import settled
from lloss.checkpoint import load_checkpoint
from lloss.commands.options import PATH, empty_option, labels_options, skip_bad_option
from lloss.errors import LabelError
from lloss.evaluation import evaluate_checkpoint, scatter
from lloss.files import write_json
from lloss.tasks import get_task


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
    the same network beside it; writes evaluation.json and evaluation.png.
    """
    out = out or (run if run.is_dir() else run.parent)
    checkpoint = load_checkpoint(run)  # a missing run is told before the images are looked for
    task, problems = get_task(checkpoint.settings.task), Problems(skip_bad)
    if flip_test:
        settings = dataclasses.replace(checkpoint.settings, flip_test=True)
        task.check_settings(settings)
        checkpoint = dataclasses.replace(checkpoint, settings=settings)
    task.check_empty(empty)
    labeled = settled(task.open(data, labels, data_root, problems), empty, problems)
    if len(labeled) < 2:
        raise LabelError(f"{data}: one image has no rank; give at least 2")
    found = evaluate_checkpoint(checkpoint, labeled, problems, device)
    for line in problems.lines():
        click.echo(line, err=True)
    write_json(out / "evaluation.json", found.as_dict())
    click.echo(f"images             {found.images}")
    if found.unseen:
        click.echo(f"of unknown classes {found.unseen}, of no known loss: not ranked")
    click.echo(f"{found.metric_name:19s}{found.metric:.4f}")
    for name, value in found.figures.items():
        click.echo(f"{name:19s}{value:.4f}")
    for note in found.notes:
        click.echo(note)
    click.echo(f"mean loss          {found.mean_loss:.4f}")
    click.echo(f"{'':19s}{'predicted loss':>15s}{'entropy':>10s}{'chance':>9s}")
    chance = {"ranking_accuracy": 0.5, "spearman": 0.0, "lift": 1.0}
    for name, expected in chance.items():
        head = f"{getattr(found.head, name):15.4f}" if found.head else f"{'–':>15s}"
        label = {"lift": "top-decile lift"}.get(name, name.replace("_", " "))
        click.echo(f"{label:19s}{head}{getattr(found.entropy, name):10.4f}{expected:9.1f}")
    if found.predicted_loss is not None:
        scatter(found, task.loss_unit, out / "evaluation.png")
        click.echo(f"picture            {out / 'evaluation.png'}")
