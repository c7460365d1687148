"""The persons of a JSON file, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lloss.annotations.coco import is_coco
from lloss.annotations.coco_keypoints import parse_keypoints
from lloss.annotations.mpii import parse_mpii
from lloss.annotations.person_record import Person
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError


def parse_persons(
    document: Any, name: str, problems: Problems, split: str = ""
) -> Iterator[Person]:
    """Read the persons of a file, in its order; those of a ``split`` of an MPII file.

    Persons of one id are all left out.
    """
    if isinstance(document, list):
        persons = parse_mpii(document, name, problems, split)
    elif is_coco(document):
        if split:
            raise LabelError(f"{name}: a COCO file has no split {split!r}; each is a file")
        persons = parse_keypoints(document, name, problems)
    else:
        raise LabelError(
            f"{name}: holds no persons; give a list as of MPII, or COCO's 'images', 'annotations' "
            "and 'categories'"
        )
    by_id: dict[str, list[Person]] = {}
    for person in persons:
        by_id.setdefault(person.id, []).append(person)
    for first, *others in by_id.values():
        with problems.skipping():
            if others:  # nobody knows which of them is right
                at = first.where.rpartition(": ")[2]
                raise AnnotationError(others[0].where, f"{first.id!r} is at {at} too")
            yield first
