"""Find an id that comes twice, in eight bytes an id."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

import numpy as np


def first_duplicate(ids: Callable[[], Iterator[str]]) -> tuple[str, int, int] | None:
    """The first id that was there before, and both its positions from 0; None when all differ.

    Args:
        ids: gives them, the same each time; they are gone through a second time only when two
            have the same 64-bit hash.
    """
    return duplicate_among(array("q", map(hash, ids())), ids)


def duplicate_among(
    hashes: array[int], ids: Callable[[], Iterator[str]]
) -> tuple[str, int, int] | None:
    """:func:`first_duplicate` where the hash of each id is known already."""
    ordered = np.sort(np.frombuffer(hashes, np.int64)) if hashes else np.empty(0, np.int64)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return None
    seen: dict[str, int] = {}
    for position, id in enumerate(ids()):
        if hash(id) in suspects and seen.setdefault(id, position) != position:
            return id, seen[id], position
    return None
