"""Tasks: what a network is trained for.

A new task is one module with an object ``TASK``, imported by a function in :data:`TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lloss.errors import SettingsError

if TYPE_CHECKING:  # tasks import torch, which the names of the tasks do not need
    from lloss.tasks.task import Task


def _classification() -> Task:
    from lloss.tasks.classification import TASK

    return TASK


def _detection() -> Task:
    from lloss.tasks.detection.detection import TASK

    return TASK


def _pose() -> Task:
    from lloss.tasks.pose.pose import TASK

    return TASK


def _segmentation() -> Task:
    from lloss.tasks.segmentation import TASK

    return TASK


TASKS: dict[str, Callable[[], Task]] = {
    "classification": _classification,
    "detection": _detection,
    "pose": _pose,
    "segmentation": _segmentation,
}


def get_task(name: str) -> Task:
    """Return the task of this name, or raise ``SettingsError``."""
    if name not in TASKS:
        raise SettingsError(f"task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]()
