"""Read Label Studio's JSON export."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from lloss.serve.daemon.errors import validation_problem
from lloss.serve.daemon.labelstudio.studio_annotation import PoolImage, StudioAnnotation
from pydantic import BaseModel, ValidationError

from lloss.errors import LabelError


class _Task(BaseModel):
    data: PoolImage
    annotations: list[StudioAnnotation]


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
    images = read_annotations(document, pool)
    classes = {id: [one.choice(control) for _, one in some] for id, some in images.items()}
    disputed = sum(len({*names} - {""}) > 1 for names in classes.values())
    return ExportedLabels({id: names[-1] for id, names in classes.items()}, disputed)


def read_annotations(
    document: Any, pool: str | None = None
) -> dict[str, list[tuple[str, StudioAnnotation]]]:
    """Read the annotations of a pool's images that are not skips, oldest first, by image id.

    Each comes with its place in the export. See :func:`read_labels`. An image without one is left
    out.
    """
    if not isinstance(document, list):
        raise LabelError("not an export of Label Studio: export JSON, which is a list of tasks")
    pools: set[str] = set()
    images: defaultdict[str, list[tuple[str, StudioAnnotation]]] = defaultdict(list)
    for number, fields in enumerate(document, 1):
        if (task := _task(fields, number)) is None or pool not in (None, task.data.lloss_pool):
            continue
        pools.add(task.data.lloss_pool)
        if len(pools) > 1:  # two pools may have the same ids
            both = " and ".join(repr(name[:100]) for name in sorted(pools))
            raise LabelError(f"task {number}: the tasks are of the pools {both}: give pool=NAME")
        images[task.data.lloss_id] += [
            (f"task {number}: annotations[{index}]", annotation)
            for index, annotation in enumerate(task.annotations)
            if not annotation.was_cancelled
        ]
    if not pools:
        whose = "that lloss made" if pool is None else f"of the pool {pool!r}"
        raise LabelError(
            f"none of the {len(document)} tasks is one {whose}: their data need lloss_pool and "
            "lloss_id, as the tasks of a selection have them"
        )
    return {id: sorted(some, key=lambda one: one[1].age) for id, some in images.items() if some}


def _task(fields: Any, number: int) -> _Task | None:
    """A task of an export; None if lloss did not create it."""
    if isinstance(fields, dict):
        if "annotation_id" in fields:
            raise LabelError(f"task {number}: this export is JSON_MIN; export JSON instead")
        data = fields.get("data")
        if isinstance(data, dict) and not {"lloss_pool", "lloss_id"} & data.keys():
            return None
    try:
        return _Task.model_validate(fields)
    except ValidationError as error:
        raise LabelError(f"task {number}: {validation_problem(error.errors()[0])}") from error
