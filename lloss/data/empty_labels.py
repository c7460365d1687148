"""Labels that show nothing: is there nothing to see, or has nobody looked yet?

No format tells the two apart, so the user decides, and a note always counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lloss.annotations.problems import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError

BACKGROUND, UNLABELED = "background", "unlabeled"
EMPTY = (BACKGROUND, UNLABELED)
"""What such a label means: the image is labeled and shows nothing, or it is not labeled yet."""


def shown(labels: Mapping[str, Any], empty: str, problems: Problems) -> dict[str, Any]:
    """The labels, by key, of what counts as labeled.

    Args:
        labels: of any task.
        empty: one of :data:`EMPTY`.
        problems: a note of how many show nothing goes there.
    """
    nothing = [key for key, label in labels.items() if _nothing(label)]
    _note([labels[key] for key in nothing], len(labels), "labeled images", empty, problems)
    if empty != UNLABELED:
        return dict(labels)
    return {key: label for key, label in labels.items() if not _nothing(label)}


def settled(
    labeled: LabeledSet, empty: str, problems: Problems, what: str = "labeled images"
) -> LabeledSet:
    """The labeled set without what does not count as labeled.

    Args:
        labeled: of any task.
        empty: one of :data:`EMPTY`.
        problems: a note of how many show nothing goes there.
        what: the images are, for the note.

    Raises:
        LabelError: nothing would be left.
    """
    nothing = {row for row, label in enumerate(labeled.labels) if _nothing(label)}
    if empty == UNLABELED and nothing and len(nothing) == len(labeled):
        raise LabelError(
            f"{labeled.origin}: all {len(labeled)} {what} show nothing, which counts as not "
            "labeled; label some first"
        )
    _note([labeled.labels[row] for row in sorted(nothing)], len(labeled), what, empty, problems)
    if empty != UNLABELED or not nothing:
        return labeled
    return labeled.take(row for row in range(len(labeled)) if row not in nothing)


def _nothing(label: Any) -> bool:
    return bool(getattr(label, "empty", False))


def _note(nothing: list[Any], total: int, what: str, empty: str, problems: Problems) -> None:
    if not nothing:
        return
    found = f"{len(nothing)} of {total} {what} show no {nothing[0].marks}"
    if empty == UNLABELED:
        problems.note(f"{found}: taken as not labeled yet, they can be selected")
        return
    problems.note(
        f"{found}: taken as background; if they are not labeled yet, pass --empty unlabeled "
        '(in lloss.toml: empty = "unlabeled")'
    )
