"""Persons labeled with their joints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lloss.annotations.json_fields import BrokenError, leaving_out, load_json
from lloss.annotations.label_archive import native_labels
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.mpii_heads import head_sizes
from lloss.annotations.person_file import read_people
from lloss.annotations.person_record import Person, check_joints
from lloss.annotations.problems import Problems
from lloss.data.id_matching import agree
from lloss.data.label_joining import images_of, labeled_pool
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError, PoolError
from lloss.images.decode import size_of
from lloss.pools import Item, Pool
from lloss.pools.person_crops import CropItem, Outline, region_items
from lloss.pools.storage import LocalPath, image_folder
from lloss.pools.uri import PoolUri


def read_persons(path: Path, problems: Problems) -> dict[str, PersonLabel]:
    """The labeled persons of a file, by id.

    Args:
        path: a JSON in one of MPII's dialects or of COCO's keypoints, or what
            ``native.write_labels`` wrote. Ids are ``image@cx,cy,scale`` or ``image@x,y,w,h``, as a
            pool of the same persons has them. Persons without an annotated joint are none.
        problems: broken annotations go there.

    Raises:
        LabelError: there is no such file, or it is of no known kind.
    """
    document = load_json(path)
    native = native_labels(document, str(path), "persons")
    if native is not None:
        return native
    labels: dict[str, PersonLabel] = {}
    people, without = _people(path, document, problems), 0
    for person in people:
        with leaving_out(problems):
            label = person.label()
            without += label is None
            if label is not None:
                labels[person.id] = label
    _note_without(without, len(people), problems)
    return labels


def join_persons(
    pool: Pool, labels: Mapping[str, PersonLabel], origin: str, problems: Problems
) -> LabeledSet:
    """Labels and the persons, or the whole images, of a pool that they are of.

    Args:
        pool: of persons, or of images; of an image of that a label may tell of one person, and its
            region is None then.
        labels: by a name of the person, or of the image; what a name means says
            :mod:`lloss.data.id_matching`.
        origin: of the labels, for messages.
        problems: labels of persons that the pool lacks go there, of several persons of a whole
            image, and joints far outside of the image.

    Raises:
        LabelError: there is no label.
    """
    if not labels:
        raise LabelError(f"{origin}: holds no label yet; label some persons first")
    whole = any(label.region is not None for label in labels.values())
    remedy = "give the pool as a JSON of persons" if whole else ""
    chosen = images_of(pool, person_names(labels), origin, problems, remedy=remedy)
    found = []
    for item, key in zip(pool.find(chosen.values()), chosen):
        label = labels[key]
        of_person = agree(key, item.id)
        found.append((item, label if of_person else dataclasses.replace(label, region=None)))
    return _set(found, origin, problems)


def person_names(labels: Mapping[str, PersonLabel]) -> dict[str, tuple[str, ...]]:
    """The names of each label: its person's, and its image's for a pool of images."""
    return {key: (key, label.image) for key, label in labels.items()}


def open_persons(data: str, labels: Path | None, data_root: Path, problems: Problems) -> LabeledSet:
    """Open persons labeled with their joints, of any kind.

    Args:
        data: a JSON of labeled persons, with ``?image=FOLDER`` for the images if they lie neither
            in its folder, nor in ``images`` below or beside that, and ``?split=train`` or
            ``?split=valid`` where ``isValidation`` tells; with ``labels`` a pool of persons or of
            images.
        labels: what :func:`read_persons` reads.
        data_root: not used; no set of this kind is downloaded.
        problems: broken annotations and missing images go there.

    Raises:
        LabelError: there is no labeled person, or the annotations cannot be read.
        PoolError: the images cannot be found.
    """
    if labels is not None:
        pool = labeled_pool(data, [labels], problems)
        return join_persons(pool, read_persons(labels, problems), str(labels), problems)
    asked = PoolUri.parse(data)
    path = Path(asked.path)
    if not path.exists():
        raise PoolError(f"{data}: no such labeled data; give a JSON of persons")
    if not path.is_file():
        raise LabelError(f"{data}: carries no labels of its own; add --labels")
    document = load_json(path)
    if native_labels(document, str(path)) is not None:
        raise LabelError(f"{path}: holds labels without images; give the pool, and it as --labels")
    people = _people(path, document, problems, asked.options.get("split", ""))
    return _labeled(path, people, asked.options.get("image", ""), problems)


def _people(path: Path, document: Any, problems: Problems, split: str = "") -> list[Person]:
    is_mpii = isinstance(document, list)
    heads = head_sizes(path, len(document), problems) if is_mpii else None
    return list(read_people(document, str(path), problems, split, heads))


def _labeled(path: Path, people: list[Person], folder: str, problems: Problems) -> LabeledSet:
    names = dict.fromkeys(person.image for person in people)
    place = image_folder(LocalPath(path), list(names), folder)
    there = {name for name in names if place.at(name).kind() == "file"}
    found: list[tuple[Outline, PersonLabel]] = []
    without = 0
    for person in people:
        with leaving_out(problems):
            label = person.label()
            without += label is None
            if label is None or label.region is None:
                continue
            if person.image not in there:
                raise BrokenError(
                    person.image_where,
                    f"no image {person.image!r} in {place}; ?image=FOLDER behind the json "
                    "says where they are",
                )
            found.append((Outline(person.id, person.image, label.region, person.size), label))
    _note_without(without, len(people), problems)
    items = region_items((outline for outline, _ in found), place)
    labels = [label for _, label in found]
    return _set(list(zip(items, labels)), str(path), problems)


def _note_without(without: int, total: int, problems: Problems) -> None:
    if without:
        problems.note(
            f"{without} of {total} persons have no annotated joint: taken as not labeled yet, "
            "they can be selected"
        )


def _set(found: list[tuple[Item, PersonLabel]], origin: str, problems: Problems) -> LabeledSet:
    items, labels = [], []
    for item, label in found:
        with leaving_out(problems):
            size = _size_in_doubt(item, label)
            if size is not None:
                check_joints(label, size, f"{origin}: {item.id!r}")
            items.append(item)
            labels.append(label)
    if not items:
        raise LabelError(f"{origin}: holds no labeled person that can be used")
    return LabeledSet(items, labels, origin)


def _size_in_doubt(item: Item, label: PersonLabel) -> tuple[int, int] | None:
    """Height and width of the image, if joints may lie far outside of it.

    Such as lie in the person's square do not, and hardly any others have to be read for this.
    """
    if label.region is not None:
        low = np.array([label.region.left, label.region.top])
        within = (label.joints >= low) & (label.joints <= low + label.region.side)
        if within[label.annotated].all():
            return None
    try:
        return size_of(item.image.read() if isinstance(item, CropItem) else item.read())
    except ImageError:
        return None  # told when it is decoded
