"""The persons of a JSON, whatever its dialect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lloss.annotations.coco import is_coco
from lloss.annotations.coco_keypoints import read_keypoints
from lloss.annotations.json_fields import BrokenError, leaving_out
from lloss.annotations.mpii import read_mpii
from lloss.annotations.person_record import Person
from lloss.annotations.problems import Problems
from lloss.errors import LabelError


def read_people(
    document: Any,
    name: str,
    problems: Problems,
    split: str = "",
    heads: Sequence[float] | None = None,
) -> Iterator[Person]:
    """The persons of a file, in its order.

    Args:
        document: the JSON.
        name: of the file, for messages.
        problems: entries without an image or a place, and those of one id, go there.
        split: the part of an MPII file that is wanted; "" for all.
        heads: the head's size of each entry of an MPII file, where another file tells them.

    Raises:
        LabelError: the JSON holds no persons.
    """
    if isinstance(document, list):
        people = read_mpii(document, name, problems, split, heads)
    elif is_coco(document):
        if split:
            raise LabelError(f"{name}: a COCO file has no split {split!r}; each is a file")
        people = read_keypoints(document, name, problems)
    else:
        raise LabelError(
            f"{name}: holds no persons; give a list as of MPII, or COCO's 'images', 'annotations' "
            "and 'categories'"
        )
    groups: dict[str, list[Person]] = {}
    for person in people:
        groups.setdefault(person.id, []).append(person)
    for first, *others in groups.values():
        with leaving_out(problems):
            if others:  # which of them is right nobody knows
                at = first.where.rpartition(": ")[2]
                raise BrokenError(others[0].where, f"{first.id!r} stands at {at} too")
            yield first
