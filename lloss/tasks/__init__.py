"""Tasks: what a network is trained for.

A new task is one module with an object ``TASK``, a name in :data:`TASKS` and an import in
:func:`get_task`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lloss.errors import SettingsError

if TYPE_CHECKING:  # tasks import torch, which the names of the tasks do not need
    from lloss.tasks.task import Task

TASKS = ("classification", "detection", "pose", "segmentation")


def get_task(name: str) -> Task:
    """Return the task of this name, or raise ``SettingsError``."""
    task: Task
    match name:
        case "classification":
            from lloss.tasks.classification import TASK as task
        case "detection":
            from lloss.tasks.detection.detection import TASK as task
        case "pose":
            from lloss.tasks.pose.pose import TASK as task
        case "segmentation":
            from lloss.tasks.segmentation.segmentation import TASK as task
        case _:
            raise SettingsError(f"task {name!r}: choose one of {', '.join(TASKS)}")
    return task
