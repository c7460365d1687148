"""A stand-in for the package ``fiftyone``, whose database does not run everywhere.

It has what lloss calls, with the types and the behaviour that the package's documentation gives.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest


class Label:
    """An embedded document."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def to_dict(self) -> dict[str, Any]:
        inner = {
            name: [one.to_dict() if isinstance(one, Label) else one for one in value]
            if isinstance(value, list)
            else value
            for name, value in self.fields.items()
        }
        return {"_id": {"$oid": "0"}, "_cls": type(self).__name__, **inner}


class Classification(Label):
    """See the package."""


class Detection(Label):
    """See the package."""


class Detections(Label):
    """See the package."""


class Keypoint(Label):
    """See the package."""


class Keypoints(Label):
    """See the package."""


class Segmentation(Label):
    """See the package."""


class KeypointSkeleton(Label):
    """See the package."""


class Sample(Label):
    """See the package."""


@dataclass
class EmbeddedField:
    """A field of labels."""

    document_type: type


@dataclass
class Dataset:
    """A dataset, a row a sample."""

    rows: list[dict[str, Any]]
    media_type: str | None = "image"
    tags: dict[str, set[str]] = field(default_factory=dict)
    mask_targets: dict[str, Any] = field(default_factory=dict)
    skeletons: dict[str, Any] = field(default_factory=dict)
    persistent: bool = False

    def save(self) -> None:
        """See the package."""

    def add_samples(self, samples: Sequence[Sample], progress: bool) -> None:
        numbered = enumerate(samples, len(self.rows))
        self.rows += [{"id": f"id{number}", **sample.fields} for number, sample in numbered]

    def get_field_schema(self) -> dict[str, Any]:
        labels = {
            name: EmbeddedField(type(value))
            for row in self.rows
            for name, value in row.items()
            if isinstance(value, Label)
        }
        return {"id": object(), "filepath": object(), **labels}

    def values(self, names: str | Sequence[str]) -> list[Any]:
        if isinstance(names, str):
            return [row.get(names) for row in self.rows]
        return [[row.get(name) for row in self.rows] for name in names]

    def has_sample_field(self, name: str) -> bool:
        return any(name in row for row in self.rows)

    def delete_sample_fields(self, names: Sequence[str]) -> None:
        for name in names:
            assert self.has_sample_field(name)
            for row in self.rows:
                row.pop(name, None)

    def set_values(self, name: str, values: Mapping[str, Any], key_field: str) -> None:
        assert key_field == "id"
        rows = {row["id"]: row for row in self.rows}
        for id, value in values.items():
            rows[id][name] = value

    def select(self, ids: Sequence[str]) -> Dataset:
        rows = {row["id"]: row for row in self.rows}
        return Dataset([rows[id] for id in ids], self.media_type, self.tags)

    def untag_samples(self, tag: str) -> None:
        for row in self.rows:
            self.tags.get(row["id"], set()).discard(tag)

    def tag_samples(self, tag: str) -> None:
        for row in self.rows:
            self.tags.setdefault(row["id"], set()).add(tag)


def install(monkeypatch: pytest.MonkeyPatch, **datasets: Dataset) -> dict[str, Dataset]:
    """Make ``import fiftyone`` find these datasets, which are returned with those to come."""
    module = ModuleType("fiftyone")
    for kind in Label.__subclasses__():
        setattr(module, kind.__name__, kind)
    calls = {
        "Dataset": lambda name: datasets.setdefault(name, Dataset([])),
        "list_datasets": lambda: sorted(datasets),
        "load_dataset": datasets.__getitem__,
    }
    vars(module).update(calls)
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    return datasets
