"""Labels as lloss itself writes them: what a cycle was trained on."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations.boxes import checked
from lloss.annotations.json_fields import BrokenError, name_of, number, numbers
from lloss.annotations.json_fields import field as needed
from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.errors import LabelError
from lloss.files import write_text
from lloss.images.crop_box import CropBox

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
    kinds = {
        kind
        for kind, made in _KINDS.items()
        for label in labels.values()
        if isinstance(label, made)
    }
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
            read[id] = _objects(fields) if found == "objects" else _person(fields)
        except BrokenError as error:
            inside = f"{error.where}: " if error.where else ""
            damage = f"{inside}{error.what}; mend it or write it anew"
            raise LabelError(f"{name}: the label of {id!r} is damaged: {damage}") from error
    return read


def _objects(fields: Any) -> ObjectLabel:
    """What :meth:`ObjectLabel.as_dict` gave.

    Raises:
        BrokenError: it did not give this; ``where`` is the key.
    """
    names = _names(fields)
    shape = _list(fields, "size", 2) if _nullable(fields, "size") is not None else None
    size = (_whole(shape[0], "size[0]", 1), _whole(shape[1], "size[1]", 1)) if shape else None
    boxes = []
    for row, values in enumerate(_list(fields, "boxes", len(names))):
        where = f"boxes[{row}]"
        x0, y0, x1, y1 = numbers(values, 4, where)
        shown = f"{x0:g}, {y0:g}, {x1:g}, {y1:g} (edges)"
        boxes.append(checked((x0, y0, x1, y1), size, where, shown))
    return ObjectLabel(
        names,
        np.array(boxes, np.float32).reshape(-1, 4),
        _flags(fields, "difficult", len(names)),
        _flags(fields, "crowd", len(names)),
        size,
    )


def _person(fields: Any) -> PersonLabel:
    """What :meth:`PersonLabel.as_dict` gave.

    Raises:
        BrokenError: it did not give this; ``where`` is the key.
    """
    image = needed(fields, "image", "")
    if not isinstance(image, str):
        raise BrokenError("image", f"{reprlib.repr(image)} is no text")
    names = _names(fields)
    if len(set(names)) < len(names):
        raise BrokenError("names", "two joints have one name")
    region = None
    if _nullable(fields, "region") is not None:
        left, top, side = _list(fields, "region", 3)
        region = CropBox(
            _whole(left, "region[0]"), _whole(top, "region[1]"), _whole(side, "region[2]", 1)
        )
    joints = [
        numbers(joint, 2, f"joints[{row}]")
        for row, joint in enumerate(_list(fields, "joints", len(names)))
    ]
    head = math.nan
    if _nullable(fields, "head") is not None:
        head = number(fields["head"], "head")
        if head <= 0:
            raise BrokenError("head", f"a head of {head:g} pixels")
    return PersonLabel(
        image,
        region,
        names,
        np.array(joints, np.float32).reshape(-1, 2),
        _flags(fields, "annotated", len(names)),
        head,
    )


def _nullable(fields: Any, key: str) -> Any:
    """The value of a key that has to be there and may be null."""
    if not isinstance(fields, Mapping) or key not in fields:
        return needed(fields, key, "")
    return fields[key]


def _list(fields: Any, key: str, length: int) -> list[Any]:
    values = needed(fields, key, "")
    if not isinstance(values, list) or len(values) != length:
        raise BrokenError(key, f"{reprlib.repr(values)}: is no list of {length}")
    return values


def _names(fields: Any) -> tuple[str, ...]:
    names = needed(fields, "names", "")
    if not isinstance(names, list):
        raise BrokenError("names", f"{reprlib.repr(names)}: is no list of names")
    return tuple(name_of(one, f"names[{place}]") for place, one in enumerate(names))


def _flags(fields: Any, key: str, length: int) -> NDArray[np.bool_]:
    values = _list(fields, key, length)
    if not all(isinstance(one, bool) for one in values):
        raise BrokenError(key, f"{reprlib.repr(values)}: is no list of true and false")
    return np.array(values, np.bool_)


def _whole(value: Any, where: str, least: float = -math.inf) -> int:
    found = number(value, where)
    if found != int(found) or found < least:
        raise BrokenError(where, f"{reprlib.repr(value)} is no number of pixels")
    return int(found)
