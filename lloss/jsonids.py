"""Which images and persons JSON labels are of, by the ids that stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lloss.annotations import PersonLabel, Problems
from lloss.annotations.coco import is_coco, listed
from lloss.annotations.native import native_labels
from lloss.annotations.objects import read_objects
from lloss.annotations.persons import read_persons
from lloss.annotations.reading import load_json
from lloss.errors import LabelError


def read_json_ids(path: Path) -> set[str]:
    """The ids of what is labeled.

    Args:
        path: objects or keypoints as COCO's, persons as MPII's, or what a cycle keeps of its
            labels. A labeled person is named by its own id, as in a pool of persons, and by its
            image's, as in a pool of images. Broken annotations label nothing.

    Raises:
        LabelError: it cannot be read, or nothing in it is labeled.
    """
    document = load_json(path)
    labels = _labels(document, path)
    if not labels:
        raise LabelError(f"{path}: no labels in JSON that name images; give a CSV with a column id")
    persons: Iterable[Any] = labels.values()
    return {*labels, *(label.image for label in persons if isinstance(label, PersonLabel))}


def _labels(document: Any, path: Path) -> Mapping[str, Any]:
    native = native_labels(document, str(path))
    if native is not None:
        return native
    if isinstance(document, list):
        return read_persons(path, Problems(skip=True))
    if is_coco(document):
        entries = listed(document, "annotations", str(path))
        of_persons = any(isinstance(entry, dict) and "keypoints" in entry for entry in entries)
        return (read_persons if of_persons else read_objects)(path, Problems(skip=True))
    if isinstance(document, dict):  # a cycle's masks
        return {id: label for id, label in document.items() if _is_of_mask(label)}
    return {}


def _is_of_mask(label: object) -> bool:
    return isinstance(label, dict) and "sha256" in label
