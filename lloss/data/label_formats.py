"""Labels of any kind, read for the names of their images.

To add an annotation format:

1. Write its parser in :mod:`lloss.annotations`.
2. Call it for objects in :mod:`.object_labels`, for persons in
   :mod:`lloss.annotations.person_file`. Boxes are in pixels; or shares of the image, as YOLO has
   them, with ``shares``: then its size is read where the label finds its image.
3. Files in a folder: recognize them in ``holds_annotations`` of :mod:`.annotation_folders`;
   otherwise the folder is taken for masks. A file that stands among its images: ``OBJECT_FILES`` or
   ``CLASS_FILES`` there.
4. For a new kind of JSON, distinguish it here in ``_any_in``, for ``--exclude``.
5. Name it in the help of ``lloss train``, and in ``docs/labels.md`` or ``docs/tasks.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lloss.annotations.coco import entries, is_coco
from lloss.annotations.cvat import is_tagged, parse_tags
from lloss.annotations.json_fields import load_json
from lloss.annotations.label_csv import read_labels
from lloss.annotations.label_studio import is_label_studio, read_annotations
from lloss.annotations.label_studio_objects import BOXES, KEYPOINT, region_types
from lloss.annotations.lloss_json import parse_archive
from lloss.annotations.metadata_jsonl import METADATA_SUFFIXES, has_objects, parse_row_labels
from lloss.annotations.problems import Problems
from lloss.annotations.yolo import YAML_SUFFIXES
from lloss.data.annotation_folders import holds_annotations
from lloss.data.fiftyone_datasets import read_dataset_names
from lloss.data.mask_files import list_masks
from lloss.data.object_labels import objects_in, read_objects
from lloss.data.pose_labels import persons_in
from lloss.errors import LabelError
from lloss.pools.uri import is_fiftyone


def read_any_labels(path: Path, problems: Problems) -> Mapping[str, Any]:
    """Read labels of whatever kind, for the names of their images; of CSV ids alone will do."""
    if is_fiftyone(path):
        return read_dataset_names(path, problems)
    if path.is_dir():
        return read_objects(path, problems) if holds_annotations(path) else list_masks(path)
    if path.suffix.lower() in YAML_SUFFIXES:
        return read_objects(path, problems)
    if path.suffix.lower() == ".xml":
        return parse_tags(path, problems) if is_tagged(path) else read_objects(path, problems)
    if path.suffix.lower() in METADATA_SUFFIXES:
        of_objects = has_objects(path)
        return (read_objects if of_objects else parse_row_labels)(path, problems)
    if path.suffix.lower() != ".json":
        return read_labels(path, needs_label=False)
    labels = _any_in(load_json(path), path, problems)
    if not labels:
        raise LabelError(f"{path}: no labels in JSON that name images; give a CSV with a column id")
    return labels


def _any_in(document: Any, path: Path, problems: Problems) -> Mapping[str, Any]:
    archived = parse_archive(document, str(path))
    if archived is not None:
        return archived
    if is_label_studio(document):
        types = region_types(document)
        if types & BOXES:
            return objects_in(document, path, problems)
        if KEYPOINT not in types:
            return dict.fromkeys(read_annotations(document, str(path), problems))
    if isinstance(document, list) or _has_keypoints(document, path):
        return persons_in(document, path, problems)
    if is_coco(document):
        return objects_in(document, path, problems)
    fields = document.items() if isinstance(document, dict) else ()  # a cycle's copy of masks
    return {id: None for id, one in fields if isinstance(one, dict) and "sha256" in one}


def _has_keypoints(document: Any, path: Path) -> bool:
    annotations = entries(document, "annotations", str(path)) if is_coco(document) else []
    return any(isinstance(one, dict) and "keypoints" in one for one in annotations)
