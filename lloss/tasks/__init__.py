"""Tasks: what a network is trained for.

A new task of lloss is one module with an object ``TASK``, a name in :data:`TASKS` and an import in
:func:`get_task`. An installed package adds one by an entry point of the group ``lloss.tasks``: its
name is the task's, and what it names is a ``Task`` object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lloss import entry_points
from lloss.errors import SettingsError

if TYPE_CHECKING:  # tasks import torch, which the names of the tasks do not need
    from lloss.tasks.task import Task

TASKS = ("classification", "detection", "pose", "segmentation")
"""Those of lloss."""


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks: those of lloss, then those of installed packages."""
    others = entry_points.registered(entry_points.TASKS)
    return (*TASKS, *(name for name in others if name not in TASKS))


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
            task = _registered(name)
    return task


def _registered(name: str) -> Task:
    """Import the task that an installed package registers."""
    from lloss.tasks.task import Task

    if name not in task_names():
        raise SettingsError(f"task {name!r}: choose one of {', '.join(task_names())}")
    try:
        found = entry_points.load(entry_points.TASKS, name)
    except SettingsError as error:
        raise SettingsError(f"task {error}") from error
    if not isinstance(found, Task):
        kind = "a class; register an object of it" if isinstance(found, type) else repr(found)
        raise SettingsError(
            f"task {name!r}: its entry point is to name a Task object of lloss.tasks.task, it "
            f"names {kind}"
        )
    if missing := [each for each in ("name", "metric", "metric_title") if not hasattr(found, each)]:
        raise SettingsError(f"task {name!r}: {type(found).__name__} has no {missing[0]}; write it")
    if found.name != name:
        raise SettingsError(
            f"task {name!r}: its object has the name {found.name!r}; register it under that"
        )
    return found
