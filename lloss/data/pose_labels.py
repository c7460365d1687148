"""Persons labeled with their joints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lloss.annotations.json_fields import load_json
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.lloss_json import load_annotations, parse_archive
from lloss.annotations.person_file import distinct, labeled_persons, parse_persons
from lloss.annotations.person_record import Person, check_joints
from lloss.annotations.problems import Problems
from lloss.annotations.yolo import YAML_SUFFIXES, read_config
from lloss.data.id_matching import agree
from lloss.data.label_joining import match_labels
from lloss.data.labeled_set import LabeledSet, usable_set
from lloss.data.object_labels import missing_image, path_and_split
from lloss.data.yolo_folders import config_of, read_yolo_persons
from lloss.errors import ImageError, LabelError, PoolError
from lloss.images.decode import size_of
from lloss.pools import Item, Pool
from lloss.pools.person_crop_pool import CropItem, PersonCrop, crop_items
from lloss.pools.storage import LocalPath, StoragePath, image_folder
from lloss.pools.uri import PoolUri


def read_persons(path: Path, problems: Problems) -> dict[str, PersonLabel]:
    """Read the labeled persons of a file, by id; persons without an annotated joint are left out.

    ``path`` is a JSON of MPII's or of COCO's keypoints, YOLO's ``data.yaml``, or a file of
    :func:`.write_labels`. Ids are ``image@cx,cy,scale`` or ``image@x,y,w,h``, as a pool of the same
    persons has them.
    """
    if path.suffix.lower() in YAML_SUFFIXES:
        return _by_id(distinct(read_yolo_persons(path, "", problems), problems), problems)
    if path.is_dir():
        raise LabelError(f"{path}: is a folder; give a JSON of persons or a data.yaml")
    document = load_json(path)
    archived = parse_archive(document, str(path), "persons")
    return persons_in(document, path, problems) if archived is None else archived


def persons_in(document: Any, path: Path, problems: Problems) -> dict[str, PersonLabel]:
    """The labeled persons of a JSON that was loaded already, by id."""
    return _by_id(parse_persons(document, str(path), problems), problems)


def _by_id(persons: Iterable[Person], problems: Problems) -> dict[str, PersonLabel]:
    return {person.id: label for person, label in labeled_persons(persons, problems)}


def join_persons(
    pool: Pool, labels: Mapping[str, PersonLabel], origin: str, problems: Problems
) -> LabeledSet:
    """Join labels with the persons, or the whole images, of a pool, see :func:`.match_labels`.

    An image has one labeled person, whose region is None then. Joints far outside of the image are
    found now.
    """
    if not labels:
        raise LabelError(f"{origin}: holds no label yet; label some persons first")
    whole = any(label.region is not None for label in labels.values())
    remedy = "give the pool as a JSON of persons" if whole else ""
    ids = match_labels(pool, labels, origin, problems, remedy=remedy)
    found = []
    for item, key in zip(pool.find(ids.values()), ids):
        label = labels[key]
        of_person = agree(key, item.id)
        found.append((item, label if of_person else dataclasses.replace(label, region=None)))
    return usable_set(found, _check, origin, "person", problems)


def open_persons(data: str, problems: Problems) -> LabeledSet:
    """Open persons that carry their joints.

    ``data`` is a JSON of labeled persons, with ``?image=FOLDER`` for the images if they are neither
    in its folder, nor in ``images`` below or beside that; or a ``data.yaml`` of YOLO or its folder,
    optionally with ``:SPLIT``.
    """
    asked = PoolUri.parse(data)
    path, split = path_and_split(data)
    if config := config_of(path):
        persons = list(distinct(read_yolo_persons(config, split, problems), problems))
        place: StoragePath = LocalPath(read_config(config).root)
    else:
        path = Path(asked.path)
        if not path.exists():
            raise PoolError(f"{data}: no such labeled data; give a JSON of persons or a data.yaml")
        if not path.is_file():
            raise LabelError(f"{data}: carries no labels of its own; add --labels")
        asked.check_options("image")
        persons = list(parse_persons(load_annotations(path), str(path), problems))
        names = list(dict.fromkeys(person.image for person in persons))
        place = image_folder(LocalPath(path), names, asked.options.get("image", ""))
    present = {name for name in {p.image for p in persons} if place.at(name).kind() == "file"}
    found: list[tuple[PersonCrop, PersonLabel]] = []
    for person, label in labeled_persons(persons, problems):
        with problems.skipping():
            if person.image not in present:
                raise missing_image(person.image_where, person.image, place)
            assert label.region is not None, "a file of persons says where each is"
            found.append((PersonCrop(person.id, person.image, label.region, person.size), label))
    items = crop_items([crop for crop, _ in found], place)
    labels = [label for _, label in found]
    return usable_set(zip(items, labels), _check, str(path), "person", problems)


def _check(item: Item, label: PersonLabel, where: str) -> PersonLabel:
    if size := _size_in_doubt(item, label):
        check_joints(label.names, label.joints, label.annotated, size, where)
    return label


def _size_in_doubt(item: Item, label: PersonLabel) -> tuple[int, int] | None:
    """Height and width of the image, if joints can be far outside of it.

    Joints inside the person's square do not, so that hardly any image has to be read for this.
    """
    if label.region is not None:
        low = np.array([label.region.left, label.region.top])
        within = (label.joints >= low) & (label.joints <= low + label.region.side)
        if within[label.annotated].all():
            return None
    try:
        return size_of(item.image.read() if isinstance(item, CropItem) else item.read())
    except ImageError:
        return None  # reported when the image is decoded
