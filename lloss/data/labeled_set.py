"""Labeled images: the items of a pool with a label each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.pools import Item

L = TypeVar("L")


@dataclass(frozen=True)
class LabeledSet:
    """Items of a pool and the label of each; the ``str`` of a label says all of it."""

    items: Sequence[Item]
    labels: Sequence[Any]
    origin: str

    def __len__(self) -> int:
        return len(self.items)

    @property
    def sha256(self) -> str:
        """Identifies the set: a digest of its ids and labels, whatever their order."""
        # As JSON: an id may hold any character that would otherwise part it from its label.
        rows = (json.dumps([item.id, str(label)]) for item, label in zip(self.items, self.labels))
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()

    def ordered(self) -> LabeledSet:
        """The same set in the order of its ids, whatever order the labels were written in."""
        return self.take(sorted(range(len(self)), key=lambda row: self.items[row].id))

    def take(self, rows: Iterable[int]) -> LabeledSet:
        """The set of these rows alone."""
        rows = list(rows)
        return LabeledSet(
            [self.items[row] for row in rows], [self.labels[row] for row in rows], self.origin
        )


def usable_set(
    found: Iterable[tuple[Item, L]],
    check: Callable[[Item, L, str], L | None],
    origin: str,
    what: str,
    problems: Problems,
) -> LabeledSet:
    """Keep the labels that ``check`` returns; ``LabelError`` if none is left."""
    items: list[Item] = []
    labels: list[L] = []
    for item, label in found:
        with problems.skipping():
            checked = check(item, label, f"{origin}: {item.id!r}")
            if checked is not None:
                items.append(item)
                labels.append(checked)
    if not items:
        raise LabelError(f"{origin}: holds no labeled {what} that can be used")
    return LabeledSet(items, labels, origin)


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The names that occur, numbers in the order of numbers, others of their text."""
    return tuple(sorted(set(labels), key=_numbers_first))


def _numbers_first(label: str) -> tuple[int, int, str]:
    number = label.isascii() and label.isdecimal() and len(label) < 4000  # int() refuses more
    return (0, int(label), label) if number else (1, 0, label)


K = TypeVar("K")

UNLABELED = "unlabeled"
EMPTY = ("background", UNLABELED)
"""What a label that shows nothing means: its image is background, or it is not labeled yet. No
format distinguishes the two, so the user decides, and a note always counts them."""


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
