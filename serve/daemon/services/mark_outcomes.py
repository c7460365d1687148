"""What became of images that a request marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Labeled:
    """What became of labels.

    Attributes:
        images: that are labeled now.
        kept: of them, that had a label and keep it, since they were given none.
        by_name: of them, that were found by a name that is not their id.
        new_classes: names that neither the model nor an earlier label knew.
    """

    images: int
    kept: int = 0
    by_name: int = 0
    new_classes: Sequence[str] = ()


@dataclass(frozen=True)
class Returned:
    """What became of images that were given back.

    Attributes:
        images: that are free now.
        others: that another selection has by now, and keeps.
        unknown: ids that are not in the pool.
    """

    images: int
    others: int
    unknown: int
