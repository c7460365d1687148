"""Tasks by name. A new task is a module with an object ``TASK``, and a line in :data:`TASKS`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lloss.errors import SettingsError

if TYPE_CHECKING:  # a task brings torch
    from lloss.tasks.base import Task

TASKS = {
    "classification": "lloss.tasks.classification",
    "detection": "lloss.tasks.detection.task",
    "pose": "lloss.tasks.pose.task",
    "segmentation": "lloss.tasks.segmentation",
}


def get_task(name: str) -> Task:
    """Load the task of this name.

    Raises:
        SettingsError: there is no such task.
    """
    if name not in TASKS:
        raise SettingsError(f"task {name!r}: choose one of {', '.join(TASKS)}")
    task: Task = importlib.import_module(TASKS[name]).TASK
    return task
