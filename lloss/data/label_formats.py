"""The formats of label files, in one list: the tasks, ``--exclude`` and pools read it.

To add a format, write its parser in :mod:`lloss.annotations`, and add a row to :data:`FORMATS`.
A format of persons, which can be a pool too, also needs a row in
:data:`lloss.annotations.person_file.PARSERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lloss.annotations.class_list import allowed_classes
from lloss.annotations.coco import CocoImage, entries, is_coco, parse_objects
from lloss.annotations.json_fields import load_json
from lloss.annotations.label_csv import read_labels
from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.lloss_json import is_archive, parse_archive
from lloss.annotations.person_file import labeled_persons, parse_persons
from lloss.annotations.problems import Problems
from lloss.data.annotation_folders import holds_xml
from lloss.data.mask_files import list_masks, masks_of_cycle
from lloss.data.voc_folders import read_voc_folder
from lloss.errors import LabelError

Kind = Literal["classes", "objects", "persons", "masks"]
"""What labels are: of classification, detection, pose and segmentation.

Masks are only listed here; segmentation reads their pixels itself.
"""


@dataclass(frozen=True)
class LabelFile:
    """A file or folder of labels; ``kind`` is what the caller needs, None for any."""

    path: Path
    kind: Kind | None = None

    @property
    def is_json(self) -> bool:
        """Whether it is a file with the suffix of JSON."""
        return self.path.suffix.lower() == ".json" and not self.path.is_dir()

    @cached_property
    def document(self) -> Any:
        """The content of a JSON file."""
        return load_json(self.path)


@dataclass(frozen=True)
class LabelFormat:
    """A format of label files.

    Attributes:
        kinds: what its labels can be.
        matches: whether a file (a folder, for a format of folders) is in this format.
        read: gives the labels by id, which is often the name of the image.
        folder: whether it is a folder of files.
        images_beside: whether such a folder may hold the images that it labels.
    """

    kinds: tuple[Kind, ...]
    matches: Callable[[LabelFile], bool]
    read: Callable[[LabelFile, Problems], Mapping[str, Any]]
    folder: bool = False
    images_beside: bool = False


def read_labels_of(kind: Kind, path: Path, problems: Problems) -> dict[str, Any]:
    """Read labels of a kind.

    If no format matches, the last format of the kind reads the file: its error says what it lacks.
    """
    file = LabelFile(path, kind)
    formats = [one for one in FORMATS if kind in one.kinds]
    formats = [one for one in formats if one.folder == path.is_dir()] or formats
    chosen = next((one for one in formats if one.matches(file)), formats[-1])
    return dict(chosen.read(file, problems))


def read_any_labels(path: Path, problems: Problems) -> Mapping[str, Any]:
    """Read labels of whatever kind, for the names of their images; of CSV ids alone will do."""
    file = LabelFile(path)
    chosen = _first_match(file)
    labels = chosen.read(file, problems) if chosen else {}
    if file.is_json and not labels:
        raise LabelError(f"{path}: no labels in JSON that name images; give a CSV with a column id")
    return labels


def may_hold_images(folder: Path) -> bool:
    """Whether images in a folder of labels can be those that it labels, unlike masks."""
    chosen = _first_match(LabelFile(folder))
    return chosen is not None and chosen.images_beside


def coco_images(path: Path, document: Any, problems: Problems) -> list[CocoImage]:
    """The images of a COCO JSON; ``classes.txt`` beside it names the classes that are allowed."""
    if not is_coco(document):
        raise LabelError(
            f"{path}: is not COCO JSON (with 'images', 'annotations' and 'categories'); give that, "
            "or a folder of VOC XML"
        )
    return parse_objects(document, str(path), allowed_classes(path.parent), problems)


def _first_match(file: LabelFile) -> LabelFormat | None:
    folder = file.path.is_dir()
    return next((one for one in FORMATS if one.folder == folder and one.matches(file)), None)


def _read_csv(file: LabelFile, problems: Problems) -> dict[str, str]:
    if file.kind is None:
        return read_labels(file.path, needs_label=False)
    return read_labels(file.path, problems=problems)


def _holds_persons(file: LabelFile) -> bool:
    document = file.document
    if not is_coco(document):
        return isinstance(document, list)
    annotations = entries(document, "annotations", str(file.path))
    return any(isinstance(one, dict) and "keypoints" in one for one in annotations)


def _read_persons(file: LabelFile, problems: Problems) -> dict[str, PersonLabel]:
    persons = parse_persons(file.document, str(file.path), problems)
    return {person.id: label for person, label in labeled_persons(persons, problems)}


def _read_coco(file: LabelFile, problems: Problems) -> dict[str, ObjectLabel]:
    images = coco_images(file.path, file.document, problems)
    return {image.name: image.objects.label(image.size) for image in images}


FORMATS = (
    # folders
    LabelFormat(
        ("objects",),
        lambda file: holds_xml(file.path),
        lambda file, problems: read_voc_folder(file.path, problems),
        folder=True,
        images_beside=True,
    ),
    LabelFormat(
        ("masks",),
        lambda file: True,
        lambda file, problems: list_masks(file.path),
        folder=True,
    ),
    # files
    LabelFormat(("classes",), lambda file: not file.is_json, _read_csv),
    LabelFormat(
        ("objects", "persons"),
        lambda file: is_archive(file.document),
        lambda file, problems: parse_archive(file.document, str(file.path), file.kind) or {},
    ),
    LabelFormat(("persons",), _holds_persons, _read_persons),
    LabelFormat(("objects",), lambda file: is_coco(file.document), _read_coco),
    LabelFormat(
        ("masks",),
        lambda file: isinstance(file.document, dict),
        lambda file, problems: masks_of_cycle(file.document),
    ),
)
"""All formats; the first that matches reads a file."""
