"""Tasks: what a network is trained for.

A new task of lloss is one module with an object ``TASK``, a name in :data:`TASKS` and an import in
:func:`get_task`. An installed package adds one by an entry point of the group ``lloss.tasks``: its
name is the task's, and what it names is a ``Task`` object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lloss import entry_points

if TYPE_CHECKING:  # tasks import torch, which the names of the tasks do not need
    from lloss.tasks.task import Task

TASKS = ("classification", "detection", "pose", "segmentation")
"""Those of lloss."""


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks: those of lloss, then those of installed packages."""
    return entry_points.names_with(entry_points.TASKS, TASKS)


def get_task(name: str) -> Task:
    """Return the task of this name.

    Raises ``SettingsError`` for an unknown name, or where what a package registers is not a task.
    """
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
            from lloss.tasks import task as module

            needed, known = ("name", "metric", "metric_title"), task_names()
            task = entry_points.load_object(
                entry_points.TASKS,
                name,
                module.Task,  # type: ignore[type-abstract]  # of which it is an object
                known,
                needed,
            )
    return task
