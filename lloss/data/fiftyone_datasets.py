"""Labels in datasets of FiftyOne."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lloss.annotations.fiftyone_labels import (
    CLASSES,
    OBJECTS,
    Sample,
    choose_field,
    parse_classes,
    parse_objects,
)
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import Problems
from lloss.pools.fiftyone_pool import load_dataset, name_and_field


def read_dataset_classes(source: Path, problems: Problems) -> dict[str, str]:
    """Read the classes of ``fiftyone:NAME?field=FIELD``, by the images' paths."""
    samples, asked = _samples(source, CLASSES, problems)
    return parse_classes(samples, str(source), asked, problems)


def read_dataset_objects(source: Path, problems: Problems) -> dict[str, ObjectLabel]:
    """Read the objects of ``fiftyone:NAME?field=FIELD``, by the images' paths."""
    samples, asked = _samples(source, OBJECTS, problems)
    return parse_objects(samples, str(source), asked, problems)


def read_dataset_names(source: Path, problems: Problems) -> dict[str, None]:
    """Read the paths of the images with a class or objects."""
    samples, _ = _samples(source, (*CLASSES, *OBJECTS), problems)
    return {sample.image: None for sample in samples if sample.label is not None}


def _samples(source: Path, kinds: Sequence[str], problems: Problems) -> tuple[list[Sample], bool]:
    """Samples with the labels of a field, and whether the user chose it."""
    origin = str(source)
    dataset, (_, asked) = load_dataset(origin), name_and_field(origin)
    fields = {
        name: kind for name, field in dataset.get_field_schema().items() if (kind := _kind(field))
    }
    field = choose_field(fields, kinds, asked, origin, problems)
    paths, labels = dataset.values(["filepath", field])
    return [
        Sample(f"{origin}: {path}", path, None if label is None else label.to_dict())
        for path, label in zip(paths, labels)
    ], bool(asked)


def _kind(field: Any) -> str:
    """The class of a field's labels; "" of other fields."""
    document = getattr(field, "document_type", None)
    names = {base.__name__ for base in getattr(document, "__mro__", ())}
    return document.__name__ if document is not None and "Label" in names else ""
