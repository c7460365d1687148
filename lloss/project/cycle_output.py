"""What a cycle hands to those who label: the selection, its task lists and the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lloss.pools import Pool
from lloss.project.labeling_tasks import (
    SUFFIXES,
    TaskListSettings,
    TaskListWriter,
    remove_tasks,
)
from lloss.project.pick_predictions import PickModel
from lloss.project.project import Project
from lloss.selection import Selection
from lloss.tasks.train_settings import TrainSettings

REPORT = "report.html"


def write_task_lists(
    project: Project,
    folder: Path,
    selection: Selection,
    pool: Pool,
    model: PickModel,
    say: Callable[[str], None],
) -> None:
    """Write a list for labeling tools in each format of the settings."""
    for format in project.formats:
        path = folder / f"selected.{format}{SUFFIXES[format]}"
        remove_tasks(path)  # of a cycle that was interrupted
        say(f"{path}: task list of {len(selection)} images")
        settings = TaskListSettings(format=format)
        for line in TaskListWriter(selection, pool, model, settings).write(path):
            say(line)


def training_in_words(settings: TrainSettings) -> str:
    """Say how a network was trained, for the report."""
    training = (
        f"{settings.epochs} epochs of batches of {settings.batch_size}, {settings.optimizer} "
        f"at {settings.lr:g}, {settings.size} pixels, first weights {settings.weights}"
    )
    if settings.freeze:
        training = f"the head alone, {settings.size} pixels, weights {settings.weights}"
    return f"{training}, seed {settings.seed}"
