"""Labels that show nothing: is the image background, or has nobody labeled it yet?

No format distinguishes the two, so the user decides, and a note always counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from lloss.annotations.problems import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError

K = TypeVar("K")

UNLABELED = "unlabeled"
EMPTY = ("background", UNLABELED)
"""What such a label means: the image is labeled and shows nothing, or it is not labeled yet."""


def drop_empty_labels(
    labels: Mapping[K, Any], empty: str, problems: Problems, what: str = "labeled images"
) -> dict[K, Any]:
    """Leave out labels that show nothing if ``empty`` is :data:`UNLABELED`; note how many do."""
    nothing = [label for label in labels.values() if getattr(label, "empty", False)]
    if not nothing:
        return dict(labels)
    count = f"{len(nothing)} of {len(labels)} {what} show no {nothing[0].marks}"
    if empty == UNLABELED:
        problems.note(f"{count}: taken as not labeled yet, they can be selected")
        return {key: label for key, label in labels.items() if not label.empty}
    problems.note(
        f"{count}: taken as background; if they are not labeled yet, pass --empty unlabeled "
        '(in lloss.toml: empty = "unlabeled")'
    )
    return dict(labels)


def drop_empty(
    labeled: LabeledSet, empty: str, problems: Problems, what: str = "labeled images"
) -> LabeledSet:
    """Apply :func:`drop_empty_labels` to a labeled set; refuse to leave nothing."""
    rows = drop_empty_labels(dict(enumerate(labeled.labels)), empty, problems, what)
    if len(labeled) and not rows:
        raise LabelError(
            f"{labeled.origin}: all {len(labeled)} {what} show nothing, which counts as not "
            "labeled; label some first"
        )
    return labeled if len(rows) == len(labeled) else labeled.take(rows)
