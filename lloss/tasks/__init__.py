"""Tasks: what a network is trained for.

A new task is one module with an object ``TASK``, and a line in :data:`MODULES`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lloss.errors import SettingsError

if TYPE_CHECKING:  # tasks import torch, which the names of the tasks do not need
    from lloss.tasks.task import Task

MODULES = {
    "classification": "lloss.tasks.classification",
    "detection": "lloss.tasks.detection.detection",
    "pose": "lloss.tasks.pose.pose",
    "segmentation": "lloss.tasks.segmentation.segmentation",
}
TASKS = tuple(MODULES)


def get_task(name: str) -> Task:
    """Return the task of this name, or raise ``SettingsError``."""
    if name not in MODULES:
        raise SettingsError(f"task {name!r}: choose one of {', '.join(TASKS)}")
    task: Task = importlib.import_module(MODULES[name]).TASK
    return task
