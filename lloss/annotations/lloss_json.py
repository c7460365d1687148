"""Labels as lloss itself writes them: the labels that a cycle was trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from lloss.annotations.boxes import BoxedObject, ObjectList, check_box
from lloss.annotations.json_fields import Box, Name, Point, convert, load_json
from lloss.annotations.label_studio import is_label_studio
from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.problems import AnnotationError
from lloss.errors import LabelError
from lloss.files import write_text
from lloss.images.crop_box import CropBox

Label = ObjectLabel | PersonLabel
_Side = Annotated[int, msgspec.Meta(ge=1)]


class _Objects(msgspec.Struct):
    """The fields of :meth:`ObjectLabel.as_dict`."""

    names: list[Name]
    boxes: list[Box]
    difficult: list[bool]
    crowd: list[bool]
    size: tuple[_Side, _Side] | None

    def label(self) -> ObjectLabel:
        _check_lengths(self, "boxes", "difficult", "crowd")
        objects = ObjectList()
        rows = zip(self.names, self.boxes, self.difficult, self.crowd)
        for row, (name, edges, difficult, crowd) in enumerate(rows):
            box = check_box(edges, self.size, f".boxes[{row}]", edges, "edges")
            objects.objects.append(BoxedObject(str(name), box, difficult, crowd))
        return objects.label(self.size)


class _Person(msgspec.Struct):
    """The fields of :meth:`PersonLabel.as_dict`."""

    image: str
    region: tuple[int, int, _Side] | None
    names: list[Name]
    joints: list[Point]
    annotated: list[bool]
    head: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None

    def label(self) -> PersonLabel:
        _check_lengths(self, "joints", "annotated")
        if len(set(self.names)) < len(self.names):
            raise AnnotationError(".names", "two joints have one name")
        return PersonLabel(
            self.image,
            CropBox(*self.region) if self.region else None,
            tuple(map(str, self.names)),
            np.array(self.joints, np.float32).reshape(-1, 2),
            np.array(self.annotated, np.bool_),
            math.nan if self.head is None else self.head,
        )


_RECORDS: dict[str, type[_Objects | _Person]] = {"objects": _Objects, "persons": _Person}


def write_labels(labels: Mapping[str, Label], path: Path) -> None:
    """Write labels by id as JSON, one a line; all of one kind, objects where there are none."""
    kinds = {"objects" if isinstance(one, ObjectLabel) else "persons" for one in labels.values()}
    if len(kinds) > 1:
        raise LabelError("labels of objects and of persons: a file holds one kind")
    kind = next(iter(kinds), "objects")
    lines = [f"{json.dumps(id, ensure_ascii=False)}: {label}" for id, label in labels.items()]
    inner = "\n" + ",\n".join(lines) + "\n" if lines else ""
    write_text(path, f'{{"lloss": "labels", "kind": "{kind}", "labels": {{{inner}}}}}\n')


def _is_archive(document: Any) -> bool:
    return isinstance(document, Mapping) and document.get("lloss") == "labels"


def parse_archive(document: Any, name: str, kind: str | None = None) -> dict[str, Any] | None:
    """The labels of a loaded JSON, checked; None for other JSON. Refuse another ``kind``."""
    if not _is_archive(document):
        return None
    given, entries = document.get("kind"), document.get("labels")
    if given not in _RECORDS or not isinstance(entries, Mapping):
        raise LabelError(f"{name}: holds labels of no known kind ({given!r}); write it again")
    if kind and given != kind and entries:
        raise LabelError(f"{name}: holds labels of {given}, not of {kind}; give those of the task")
    labels: dict[str, Any] = {}
    for id, fields in entries.items():
        try:
            labels[id] = convert(fields, _RECORDS[given], "").label()
        except AnnotationError as error:
            damage = f"{error}; fix it or write it again".removeprefix(": ").removeprefix(".")
            raise LabelError(f"{name}: the label of {id!r} is damaged: {damage}") from error
    return labels


def load_annotations(path: Path) -> Any:
    """Load a JSON of images and their annotations; refuse an archive, which lacks the images.

    So does an export of Label Studio, which has its own places for them.
    """
    document = load_json(path)
    if _is_archive(document) or is_label_studio(document):
        raise LabelError(f"{path}: holds labels without images; give the pool, and it as --labels")
    return document


def _check_lengths(record: _Objects | _Person, *keys: str) -> None:
    for key in keys:
        values = getattr(record, key)
        if len(values) != len(record.names):
            what = f"{len(values)} values, but {len(record.names)} names"
            raise AnnotationError(f".{key}", what)
