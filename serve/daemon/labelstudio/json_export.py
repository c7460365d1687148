"""Read Label Studio's exports, JSON and JSON_MIN."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from lloss.serve.daemon.errors import validation_problem
from lloss.serve.daemon.labelstudio.studio_annotation import Annotation
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from lloss.errors import LabelError
from lloss.text.clean_names import is_text

T = TypeVar("T", bound=BaseModel)

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


class TaskData(BaseModel):
    """The data of a task."""

    data: dict[str, Any]


class AnnotatedTask(BaseModel):
    """The annotations of a task."""

    annotations: list[Annotation]


@dataclass(frozen=True)
class ExportedLabels:
    """The labels of an export, by image id.

    Attributes:
        labels: the choice of the newest annotation; "" when it does not have exactly one.
        disputed: images with annotations of different classes.
    """

    labels: Mapping[str, str]
    disputed: int


@dataclass(frozen=True)
class ExportedAnnotation:
    """An annotation, where it is in the export, and whether the export is JSON_MIN."""

    annotation: Annotation
    where: str
    minimal: bool = False


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
    if any(one.minimal for some in images.values() for one in some):
        _check_control([one.annotation for some in images.values() for one in some], control)
    classes = {
        id: [one.annotation.choice(control) for one in found] for id, found in images.items()
    }
    disputed = sum(len({*names} - {""}) > 1 for names in classes.values())
    return ExportedLabels({id: names[-1] for id, names in classes.items()}, disputed)


def read_annotations(document: Any, pool: str | None = None) -> dict[str, list[ExportedAnnotation]]:
    """Read the annotations of a pool's images that are not skips, oldest first, by image id.

    See :func:`read_labels`. An image without one is left out.
    """
    if not isinstance(document, list):
        raise LabelError("not an export of Label Studio: export JSON, which is a list of tasks")
    pools: dict[str, None] = {}
    images: defaultdict[str, list[ExportedAnnotation]] = defaultdict(list)
    for number, task in enumerate(document, 1):
        where = f"task {number}"
        minimal = isinstance(task, dict) and "annotation_id" in task
        data = task if minimal else _validated(TaskData, task, where).data
        if "lloss_pool" not in data and "lloss_id" not in data:
            continue
        place = _validated(_PoolImage, data, where)
        name, id = place.lloss_pool, place.lloss_id
        if name != pool and pool is not None:
            continue
        pools[name] = None
        if len(pools) > 1:  # two pools may have the same ids
            both = " and ".join(repr(name[:100]) for name in sorted(pools))
            raise LabelError(f"{where}: the tasks are of the pools {both}: give pool=NAME")
        for one in _annotations(task, where):
            images[id].append(one)
    if not pools:
        whose = "that lloss made" if pool is None else f"of the pool {pool!r}"
        raise LabelError(
            f"none of the {len(document)} tasks is one {whose}: their data need lloss_pool and "
            "lloss_id, as the tasks of a selection have them"
        )
    return {id: sorted(some, key=lambda one: one.annotation.age) for id, some in images.items()}


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


def _annotations(task: Any, where: str) -> Iterator[ExportedAnnotation]:
    """The annotations of a task that are not skips."""
    if "annotation_id" in task:  # JSON_MIN
        number = task["annotation_id"] if type(task["annotation_id"]) is int else 0
        times = {key: task.get(key) for key in ("created_at", "updated_at")}
        annotation = Annotation(id=number, result=_minimal_result(task), **times)
        yield ExportedAnnotation(annotation, where, minimal=True)
        return
    for index, annotation in enumerate(_validated(AnnotatedTask, task, where).annotations):
        if not annotation.was_cancelled:
            yield ExportedAnnotation(annotation, f"{where}: annotations[{index}]")


def _validated(model: type[T], fields: Any, where: str) -> T:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise LabelError(f"{where}: {validation_problem(error.errors()[0])}") from error


def _minimal_result(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results that JSON would have: a text may be the choice of the control of that name."""
    return [
        {"from_name": key, "type": "choices", "value": {"choices": [value]}}
        if isinstance(value, str)
        else {"from_name": key, "type": ""}
        for key, value in task.items()
        if key not in _MINIMAL_KEYS and not key.startswith("lloss_")
    ]
