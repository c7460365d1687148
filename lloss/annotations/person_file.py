"""The persons of a JSON file, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lloss.annotations.coco import is_coco
from lloss.annotations.coco_keypoints import parse_keypoints
from lloss.annotations.label_studio import is_label_studio
from lloss.annotations.label_studio_objects import parse_keypoints as parse_studio_keypoints
from lloss.annotations.label_types import PersonLabel
from lloss.annotations.mpii import parse_mpii
from lloss.annotations.person_record import Person
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.text.counts import part


def parse_persons(document: Any, name: str, problems: Problems) -> Iterator[Person]:
    """Read the persons of a file, in its order; persons of one id are all left out."""
    if is_label_studio(document):
        parse: Callable[[Any, str, Problems], Iterator[Person]] = parse_studio_keypoints
    elif isinstance(document, list):
        parse = parse_mpii
    elif is_coco(document):
        parse = parse_keypoints
    else:
        raise LabelError(
            f"{name}: holds no persons; give a list as of MPII, COCO's 'images', 'annotations' and "
            "'categories', or an export of Label Studio"
        )
    return distinct(parse(document, name, problems), problems)


def distinct(persons: Iterable[Person], problems: Problems) -> Iterator[Person]:
    """The persons, in order; those of one id are all left out."""
    by_id: dict[str, list[Person]] = {}
    for person in persons:
        by_id.setdefault(person.id, []).append(person)
    for first, *others in by_id.values():
        with problems.skipping():
            if others:  # nobody knows which of them is right
                at = first.where.rpartition(": ")[2]
                raise AnnotationError(others[0].where, f"{first.id!r} is at {at} too")
            yield first


def labeled_persons(
    persons: Iterable[Person], problems: Problems
) -> list[tuple[Person, PersonLabel]]:
    """The persons with an annotated joint; a note counts the others."""
    labeled: list[tuple[Person, PersonLabel]] = []
    total = unlabeled = 0
    for person in persons:
        total += 1
        with problems.skipping():
            label = person.label()
            unlabeled += label is None
            if label is not None:
                labeled.append((person, label))
    if unlabeled:
        problems.note(
            f"{part(unlabeled, total, 'persons', 'have')} no annotated joint: taken as not labeled "
            "yet, to be selected"
        )
    return labeled
