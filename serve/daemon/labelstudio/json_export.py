"""Read Label Studio's exports, JSON and JSON_MIN."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from lloss.serve.daemon.errors import validation_problem
from lloss.serve.daemon.labelstudio.studio_annotation import Annotation
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from lloss.errors import LabelError
from lloss.text.clean_names import is_text

_MINIMAL_KEYS = frozenset(
    {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "image"}
)
"""Keys of JSON_MIN that are not controls; the keys of our tasks' data begin with ``lloss_``."""

_LISTED = 5
"""Keys that an error message lists."""


def _check_text(text: str) -> str:
    if not is_text(text):
        raise ValueError("unpaired surrogate")
    return text


_Text = Annotated[str, Field(min_length=1), AfterValidator(_check_text)]


class _PoolImage(BaseModel):
    lloss_pool: _Text
    lloss_id: _Text


class _Task(BaseModel):
    data: _PoolImage
    annotations: list[Annotation]


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
        document: the parsed JSON or JSON_MIN.
        pool: reads only this pool's tasks; by default those of the only pool in it.
        control: name of the Choices control that gives the label. JSON needs it when several
            controls choose; JSON_MIN when it has texts, which may also be columns of the tasks.

    Raises:
        LabelError: not such an export, no task of the pool, or the choice is ambiguous.
    """
    images = read_annotations(document, pool)
    if is_minimal(document):
        _check_control([one for some in images.values() for _, one in some], control)
    classes = {id: [one.choice(control) for _, one in some] for id, some in images.items()}
    disputed = sum(len({*names} - {""}) > 1 for names in classes.values())
    return ExportedLabels({id: names[-1] for id, names in classes.items()}, disputed)


def is_minimal(document: Any) -> bool:
    """Whether an export is JSON_MIN."""
    return any(isinstance(task, dict) and "annotation_id" in task for task in document)


def read_annotations(
    document: Any, pool: str | None = None
) -> dict[str, list[tuple[str, Annotation]]]:
    """Read the annotations of a pool's images that are not skips, oldest first, by image id.

    Each comes with its place in the export. See :func:`read_labels`. An image without one is left
    out.
    """
    if not isinstance(document, list):
        raise LabelError("not an export of Label Studio: export JSON, which is a list of tasks")
    pools: set[str] = set()
    images: defaultdict[str, list[tuple[str, Annotation]]] = defaultdict(list)
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
    key = lambda one: (one[1].changed, one[1].id)  # noqa: E731
    return {id: sorted(some, key=key) for id, some in images.items() if some}


def _task(fields: Any, number: int) -> _Task | None:
    """A task of an export; None if lloss did not create it."""
    if isinstance(fields, dict):
        if "annotation_id" in fields:
            fields = _from_minimal(fields)
        data = fields.get("data")
        if isinstance(data, dict) and not {"lloss_pool", "lloss_id"} & data.keys():
            return None
    try:
        return _Task.model_validate(fields)
    except ValidationError as error:
        raise LabelError(f"task {number}: {validation_problem(error.errors()[0])}") from error


def _from_minimal(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task of JSON_MIN as JSON has it: a text may be the choice of the control of that name."""
    number = task["annotation_id"] if type(task["annotation_id"]) is int else 0
    times = {key: task.get(key) for key in ("created_at", "updated_at")}
    results = [
        {"from_name": key, "type": "choices", "value": {"choices": [value]}}
        if isinstance(value, str)
        else {"from_name": key, "type": ""}
        for key, value in task.items()
        if key not in _MINIMAL_KEYS and not key.startswith("lloss_")
    ]
    return {"data": task, "annotations": [{"id": number, "result": results, **times}]}


def _check_control(annotations: Sequence[Annotation], control: str | None) -> None:
    """In JSON_MIN a text may be a choice, or a column of the task."""
    results = [result for annotation in annotations for result in annotation.result]
    texts = dict.fromkeys(one["from_name"] for one in results if one["type"] == "choices")
    listed = ", ".join(repr(key[:100]) for key in list(texts)[:_LISTED])
    if control is None and texts:
        raise LabelError(
            f"JSON_MIN does not say which of {listed} is a choice: give control=NAME, the name of "
            "the Choices control in the labeling configuration, or export JSON"
        )
    if control and not any(one["from_name"] == control for one in results):
        raise LabelError(
            f"no task was annotated by the control {control[:100]!r} (there are: "
            f"{listed or 'no texts'}); give its name in the labeling configuration"
        )
