"""Read Label Studio's JSON export of tasks that lloss created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lloss.annotations.json_fields import convert
from lloss.annotations.label_studio import (
    PoolImage,
    TaskImage,
    is_disputed,
    read_annotations,
)
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError


class ExportedLabels(NamedTuple):
    """The labels of an export, by image id.

    Attributes:
        labels: the choice of the newest annotation; "" when it does not have exactly one.
        disputed: images with annotations of different classes.
    """

    labels: Mapping[str, str]
    disputed: int


def read_labels(
    document: Any, pool: str | None = None, control: str | None = None
) -> ExportedLabels:
    """Read the labels of an export.

    Args:
        document: the parsed JSON.
        pool: reads only this pool's tasks; by default those of the only pool in it.
        control: name of the Choices control that gives the label, when there are several.

    Raises:
        LabelError: not such an export, or no task of the pool.
    """
    tasks = PoolTasks(pool)
    images = read_annotations(document, "", Problems(remedy=""), tasks.image_of)
    tasks.refuse_none(document)
    labels = {id: some[-1].annotation.choice(control) for id, some in images.items()}
    return ExportedLabels(labels, sum(is_disputed(some, control) for some in images.values()))


class PoolTasks:
    """Names the images of a pool's tasks, or of the only pool in an export."""

    def __init__(self, pool: str | None) -> None:
        self.pool = pool
        self.found = False

    def image_of(self, data: Mapping[str, Any], where: str) -> TaskImage | None:
        """The image of a task; None if it is not the pool's. See :data:`NameOf`."""
        if not {"lloss_pool", "lloss_id"} & data.keys():
            return None
        image = convert(data, PoolImage, where)
        if not image.lloss_pool:
            raise AnnotationError(where, "lacks the key 'lloss_pool'")
        if self.pool not in (None, image.lloss_pool):
            return None
        self.found = True
        return TaskImage(image.lloss_id, image.lloss_pool)

    def refuse_none(self, document: Any) -> None:
        """Raise LabelError if no task was the pool's."""
        if not self.found:
            whose = "that lloss made" if self.pool is None else f"of the pool {self.pool!r}"
            raise LabelError(
                f"none of the {len(document)} tasks is one {whose}: their data need lloss_pool and "
                "lloss_id, as the tasks of a selection have them"
            )
