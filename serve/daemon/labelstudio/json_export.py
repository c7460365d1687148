"""Labels out of Label Studio's exports (JSON and JSON_MIN), and out of single annotations."""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, is_text

_OWN = frozenset(
    {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "image"}
)
"""Of JSON_MIN, with ``image``; beside them stand, by control, what was annotated."""

_LISTED = 5
"""Keys that a refusal names."""

_DATA = "lloss_"
"""How the keys begin that our tasks have beside ``image``."""


@dataclass(frozen=True, order=True)
class Age:
    """How new an annotation is: when it was last changed (Unix seconds), then its number."""

    changed: float
    id: int

    @classmethod
    def of(cls, fields: Mapping[str, Any], number: object) -> Age:
        """Out of an annotation, or what else has ``updated_at`` and ``created_at``."""
        changed = _seconds(fields.get("updated_at")) or _seconds(fields.get("created_at"))
        return cls(changed, number if isinstance(number, int) else 0)


def _seconds(stamp: object) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp() if isinstance(stamp, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0


def place_of(data: object) -> tuple[str, str] | None:
    """Pool and id that a task's data names; None where it is no task of ours."""
    if not isinstance(data, dict):
        return None
    pool, id = data.get("lloss_pool"), data.get("lloss_id")
    if isinstance(pool, str) and isinstance(id, str) and is_text(pool) and is_text(id):
        return pool, id
    return None


def choice_of(result: object, control: str | None = None) -> str:
    """The class that an annotation gives the whole image; "" where it gives none or several.

    Args:
        result: of the annotation. Choices of a region have its coordinates beside them.
        control: whose choice counts; by default the only one.
    """
    found = [
        item["value"]["choices"]
        for item in (result if isinstance(result, list) else ())
        if isinstance(item, dict)
        and item.get("type") == "choices"
        and control in (None, item.get("from_name"))
        and isinstance(item.get("value"), dict)
        and item["value"].keys() == {"choices"}
    ]
    if len(found) != 1 or not isinstance(found[0], list) or len(found[0]) != 1:
        return ""
    return _class(found[0][0])


def _class(choice: object) -> str:
    return clean_name(choice) if isinstance(choice, str) and is_text(choice) else ""


@dataclass(frozen=True)
class Annotated:
    """The annotation of an image that counts.

    Attributes:
        where: it stands in the export.
        age: of it.
        fields: of it; in JSON_MIN those of the task with it.
        minimal: whether this is JSON_MIN.
    """

    where: str
    age: Age
    fields: Mapping[str, Any]
    minimal: bool = False


def labels_of(document: Any, pool: str | None = None, control: str | None = None) -> dict[str, str]:
    """The labels of an export.

    Args:
        document: that was read from JSON or JSON_MIN.
        pool: whose tasks count; by default all that ``lloss`` made, which must be of one pool.
        control: name of the Choices control, in the labeling configuration, whose choice is the
            label. JSON has the kind of each result and needs none where one control chooses;
            JSON_MIN shows annotations and columns of the tasks alike.

    Returns:
        A label by id for each task with an annotation that was not skipped, by the newest one:
        the choice, where exactly one was made for the whole image, else "": boxes, masks and
        keypoints stay in the export.

    Raises:
        LabelError: it is no such export, no task is of the pool, or what is the choice cannot be
            known.
    """
    newest = newest_of(document, pool)
    minimal = [found.fields for found in newest.values() if found.minimal]
    _check_control(minimal, control)
    return {id: _label_of(found, control) for id, found in newest.items()}


def _check_control(tasks: Sequence[Mapping[str, Any]], control: str | None) -> None:
    """Of JSON_MIN: a text may be a choice, or a column that the task came with."""
    texts = {
        key: None for task in tasks for key, value in task.items()
        if key not in _OWN and not key.startswith(_DATA) and isinstance(value, str)
    }  # fmt: skip
    listed = ", ".join(repr(key[:100]) for key in list(texts)[:_LISTED])
    if control is None and texts:
        raise LabelError(
            f"JSON_MIN does not say which of {listed} is a choice: give control=NAME, the name of "
            "the Choices control in the labeling configuration, or export JSON"
        )
    if control and tasks and not any(control in task for task in tasks):
        raise LabelError(
            f"no task was annotated by the control {control[:100]!r} (there are: "
            f"{listed or 'no texts'}); give its name in the labeling configuration"
        )


def disputed_in(document: Any, pool: str | None = None, control: str | None = None) -> int:
    """How many images have annotations of different classes; see :func:`labels_of`."""
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for id, found in _annotations_of(document, pool):
        classes[id].add(_label_of(found, control))
    return sum(len(names - {""}) > 1 for names in classes.values())


def newest_of(document: Any, pool: str | None = None) -> dict[str, Annotated]:
    """The newest annotation that is no skip, by the image's id; see :func:`labels_of`."""
    newest: dict[str, Annotated] = {}
    for id, found in _annotations_of(document, pool):
        if id not in newest or found.age >= newest[id].age:
            newest[id] = found
    return newest


def _annotations_of(document: Any, pool: str | None) -> Iterator[tuple[str, Annotated]]:
    """The annotations of a pool's images that are no skips, and whose they are."""
    if not isinstance(document, list):
        raise LabelError("no export of Label Studio: a list of tasks is needed; export JSON")
    pools: set[str] = set()
    for number, task in enumerate(document, 1):
        where = f"task {number}"
        data = _data(task, where)
        if "lloss_pool" not in data and "lloss_id" not in data:
            continue
        name = _text(data, "lloss_pool", where)
        if name != pool and pool is not None:
            continue
        pools.add(name)
        if len(pools) > 1:  # ids of two pools may be the same
            both = " and ".join(repr(name[:100]) for name in sorted(pools))
            raise LabelError(f"{where}: the tasks are of the pools {both}: give pool=NAME")
        id = _text(data, "lloss_id", where)
        for found in _annotated(task, where):
            yield id, found
    if not pools:
        whose = "that lloss made" if pool is None else f"of the pool {pool!r}"
        raise LabelError(
            f"none of the {len(document)} tasks is one {whose}: their data need lloss_pool and "
            "lloss_id, as the tasks of a selection have them"
        )


def _label_of(found: Annotated, control: str | None) -> str:
    if found.minimal:
        return _class(found.fields.get(control or ""))
    return choice_of(found.fields["result"], control)


def _data(task: Any, where: str) -> dict[str, Any]:
    if not isinstance(task, dict):
        raise broken(where, "", "is no object", task)
    if "annotation_id" in task:
        return task  # JSON_MIN, where the data stand among the rest
    data = task.get("data")
    if not isinstance(data, dict):
        raise broken(where, "data", "must be an object", data)
    return data


def _text(data: dict[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value or not is_text(value):
        raise broken(where, key, "must be a text", value)
    return value


def _annotated(task: dict[str, Any], where: str) -> Iterator[Annotated]:
    if "annotation_id" in task:
        yield Annotated(where, Age.of(task, task["annotation_id"]), task, minimal=True)
        return
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        raise broken(where, "annotations", "must be a list", annotations)
    for index, annotation in enumerate(annotations):
        key = f"annotations[{index}]"
        if not isinstance(annotation, dict):
            raise broken(where, key, "must be an object", annotation)
        if not isinstance(annotation.get("result"), list):
            raise broken(where, f"{key}.result", "must be a list", annotation.get("result"))
        if not annotation.get("was_cancelled"):
            age = Age.of(annotation, annotation.get("id"))
            yield Annotated(f"{where}: {key}", age, annotation)


def broken(where: str, key: str, what: str, value: object) -> LabelError:
    """The error of a value that stands in an export."""
    shown = reprlib.repr(value)
    return LabelError(f"{where}: {key} {what}, not {shown}" if key else f"{where}: {what}: {shown}")
