"""``lloss train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    PATH,
    chosen_settings,
    empty_option,
    labels_options,
    skip_bad_option,
    training_settings,
)
from lloss.data.empty_labels import settled
from lloss.tasks.presets import EXPERIMENTS


@click.command()
@click.argument("data", required=False)
@labels_options
@skip_bad_option
@empty_option
@click.option("-o", "--out", type=PATH, help="The run's folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in that folder.")
@click.option("--warm-start", type=PATH, help="A run to take the first weights from.")
@click.option("--device", default="", help="cpu or cuda.  [default: cuda where there is one]")
@click.option("--show", is_flag=True, help="Print the settings as JSON and do nothing.")
@training_settings
def train(
    data: str | None,
    labels: Path | None,
    data_root: Path,
    skip_bad: bool,
    empty: str,
    out: Path | None,
    resume: bool,
    warm_start: Path | None,
    device: str,
    show: bool,
    preset: str,
    detach_head: bool,
    **given: Any,
) -> None:
    """Train a network with its loss prediction head on DATA.

    DATA is labeled images. For classification: a class-per-folder tree, a pool with --labels, a
    .npz of images and labels, or cifar10/cifar100. For detection: a VOC tree (VOCdevkit:trainval),
    a COCO json, or a pool with --labels (a COCO json, or a folder of VOC xml files). For pose: an
    MPII or COCO keypoints json. For segmentation: a pool with --labels (a folder of PNG masks).
    The run's folder gets checkpoint.pt and metrics.jsonl.
    """
    settings = chosen_settings(preset, detach_head, given)
    if show:
        shown = settings.as_dict()
        if preset in EXPERIMENTS:
            shown["experiment"] = EXPERIMENTS[preset]
        click.echo(json.dumps(shown, indent=2))
        return
    if data is None or out is None:
        raise click.UsageError("give labeled images and the run's folder: lloss train DATA -o RUN")
    from lloss.tasks import get_task
    from lloss.tasks.task import note_classes
    from lloss.training import run as runs  # brings torch, which --help does not need

    task, problems = get_task(settings.task), Problems(skip_bad)
    task.check_empty(empty)
    with problems.explaining():
        labeled = settled(task.open(data, labels, data_root, problems), empty, problems)
    classes = task.classes(labeled.labels)
    note_classes(task, labeled.labels, problems)
    click.echo(f"train {settings.model} on {len(labeled)} images of {len(classes)} classes")
    done = runs.train(
        labeled,
        settings,
        out,
        resume=resume,
        warm_start=warm_start,
        device=device,
        problems=problems,
        say=lambda line: click.echo(line, err=True),
    )
    click.echo(f"{done.path}: {done.epoch} epochs{_last_figures(out, task.metric)}")


def _last_figures(run: Path, metric: str) -> str:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1]) if lines else {}
    shown = [f"{name} {last[name]:.3f}" for name in ("loss", metric) if name in last]
    if "ranking_accuracy" in last:
        shown.append(f"ranking accuracy {last['ranking_accuracy']:.3f}")
    return f" ({', '.join(shown)} on the training images)" if shown else ""
