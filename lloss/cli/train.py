"""``lloss train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lloss.annotations import Problems
from lloss.cli.options import (
    PATH,
    empty_option,
    labels_options,
    print_notes,
    skip_bad_option,
    training_device_option,
    training_settings,
)
from lloss.data.labeled_set import drop_empty
from lloss.runtime.torchrun_process import torchrun_process
from lloss.tasks.presets import resolve_settings
from lloss.text.counts import counted


@click.command("train")
@click.argument("data", required=False)
@labels_options
@skip_bad_option
@empty_option
@click.option("-o", "--out", type=PATH, help="The run's folder.")
@click.option("--resume", is_flag=True, help="Resume the run in that folder.")
@click.option("--warm-start", type=PATH, help="Start from the weights of this run.")
@training_device_option
@click.option("--show", is_flag=True, help="Print the settings as JSON and do nothing else.")
@training_settings
def command(
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
    train: dict[str, Any],
) -> None:
    """Train a network with its loss prediction head on DATA.

    DATA is labeled images. For classification: a class-per-folder tree, a pool with --labels (CSV,
    CVAT xml with tags, metadata.jsonl), a .npz of images and labels, or cifar10/cifar100. For
    detection: a VOC tree (VOCdevkit:trainval), a COCO json, a CVAT xml, a metadata.jsonl, YOLO's
    data.yaml (data.yaml:train), or a pool with --labels (these, or a folder of VOC xml, YOLO txt or
    LabelMe json files). For pose: an MPII or COCO keypoints json, or a data.yaml. For segmentation:
    a pool with --labels (a folder of PNG masks). For each task: a pool with --labels of Label
    Studio (export.json). For classification and detection: fiftyone:NAME. All formats are in
    docs/labels.md.
    The run's folder receives checkpoint.pt and metrics.jsonl, and cross_validation.json of few
    labels (--folds).
    """
    settings = resolve_settings(preset, **train)
    if show:
        click.echo(json.dumps(settings.as_dict(), indent=2))
        return
    if data is None or out is None:
        raise click.UsageError("give labeled images and the run's folder: lloss train DATA -o RUN")
    from lloss.tasks import get_task  # imports torch, which --help does not need
    from lloss.training import run
    from lloss.training.checkpoint import FILE

    task, problems = get_task(settings.task), Problems(skip_bad)
    task.check_empty(empty)
    with problems.explaining():
        labeled = drop_empty(task.open(data, labels, data_root, problems), empty, problems)
    classes = task.classes(labeled.labels)
    task.note_classes(labeled.labels, problems)
    if resume and not (out / FILE).exists():
        click.echo(f"note: {out} holds no checkpoint to resume: train from the start")
    of = counted(len(classes), "class", "classes")
    click.echo(f"train {settings.model} on {counted(len(labeled), 'image')} of {of}")
    checkpoint = run.train(
        labeled,
        settings,
        out,
        resume=resume,
        warm_start=warm_start,
        device=device,
        problems=problems,
        say=print_notes,
        process=torchrun_process(),
    )
    done = f"{counted(checkpoint.epoch, 'epoch')}{_last_metrics(out)}"
    if settings.freeze:
        done = "the trained head of a frozen network"
    click.echo(f"{checkpoint.path}: {done}")


def _last_metrics(run: Path) -> str:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1]) if lines else {}
    shown = [
        f"{name.replace('_', ' ')} {last[name]:.3f}"
        for name in ("loss", "ranking_accuracy")
        if name in last
    ]
    return f" ({', '.join(shown)} on the training images)" if shown else ""
