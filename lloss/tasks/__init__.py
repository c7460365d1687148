"""Tasks: what a network is trained for.

A new task is one module with an object ``TASK``, imported by :func:`get_task`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lloss.errors import SettingsError

if TYPE_CHECKING:  # tasks import torch, which the names of the tasks do not need
    from lloss.tasks.task import Task

TASKS = ("classification", "detection", "pose", "segmentation")


def get_task(name: str) -> Task:
    """Return the task of this name, or raise ``SettingsError``."""
    if name == "classification":
        from lloss.tasks.classification import TASK
    elif name == "detection":
        from lloss.tasks.detection.detection import TASK
    elif name == "pose":
        from lloss.tasks.pose.pose import TASK
    elif name == "segmentation":
        from lloss.tasks.segmentation.segmentation import TASK
    else:
        raise SettingsError(f"task {name!r}: choose one of {', '.join(TASKS)}")
    return TASK
