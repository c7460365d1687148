"""Labels as lloss itself writes them: what a cycle was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lloss.annotations.labels import ObjectLabel, PersonLabel
from lloss.annotations.reading import load_json
from lloss.errors import LabelError
from lloss.files import write_text

_KINDS: dict[str, type[ObjectLabel] | type[PersonLabel]] = {
    "objects": ObjectLabel,
    "persons": PersonLabel,
}


def labels_text(labels: Mapping[str, ObjectLabel] | Mapping[str, PersonLabel]) -> str:
    """Labels by id as JSON, one a line: ``{"lloss": "labels", "kind": ..., "labels": {...}}``.

    Args:
        labels: all of one kind; none at all are objects.

    Raises:
        LabelError: they are of two kinds.
    """
    kinds = {kind for kind, made in _KINDS.items() for label in labels.values() if _is(label, made)}
    if len(kinds) > 1:
        raise LabelError("labels of objects and of persons: a file holds one kind")
    kind = next(iter(kinds), "objects")
    lines = [
        f"{json.dumps(id, ensure_ascii=False)}: {json.dumps(label.as_dict(), ensure_ascii=False)}"
        for id, label in labels.items()
    ]
    inner = "\n" + ",\n".join(lines) + "\n" if lines else ""
    return f'{{"lloss": "labels", "kind": "{kind}", "labels": {{{inner}}}}}\n'


def write_labels(labels: Mapping[str, ObjectLabel] | Mapping[str, PersonLabel], path: Path) -> None:
    """Write labels by id whole or not at all, to be read again by their task's reader.

    Raises:
        LabelError: they are of two kinds.
        LlossError: the file cannot be written.
    """
    write_text(path, labels_text(labels))


def read_native(path: Path) -> dict[str, Any] | None:
    """What :func:`write_labels` wrote, by id; None if the file is JSON of another kind.

    Raises:
        LabelError: it is no JSON, or the labels in it are damaged.
    """
    return native_labels(load_json(path), str(path))


def native_labels(document: Any, name: str, kind: str = "") -> dict[str, Any] | None:
    """The labels of a JSON that was read already; None if it is of another kind.

    Args:
        document: the JSON.
        name: of its file, for messages.
        kind: ``objects`` or ``persons``, where only one is wanted.

    Raises:
        LabelError: the labels are damaged or not of the kind that is wanted.
    """
    if not isinstance(document, Mapping) or document.get("lloss") != "labels":
        return None
    found, labels = document.get("kind"), document.get("labels")
    if found not in _KINDS or not isinstance(labels, Mapping):
        raise LabelError(f"{name}: holds labels of no known kind ({found!r}); write it anew")
    if kind and found != kind and labels:
        raise LabelError(f"{name}: holds labels of {found}, not of {kind}; give those of the task")
    read: dict[str, Any] = {}
    for id, fields in labels.items():
        try:
            read[id] = _KINDS[found].from_dict(fields)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise LabelError(f"{name}: the label of {id!r} is damaged ({error!r})") from error
    return read


def _is(label: object, made: type) -> bool:
    return isinstance(label, made)
