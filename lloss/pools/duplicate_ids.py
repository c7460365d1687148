"""Find an id that occurs twice, in eight bytes an id."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

import numpy as np

from lloss.errors import PoolError
from lloss.pools.pool import Pool


def checked_ids(pool: Pool) -> Iterator[str]:
    """Yield the ids of a pool; at the end it is certain that they differ.

    Raises:
        PoolError: an id occurs twice. Pools with :attr:`Pool.unique` are not checked.
    """
    if pool.unique:
        yield from pool.ids()
        return
    hashes = array("q")
    for id in pool.ids():
        hashes.append(hash(id))
        yield id
    duplicate = _first_of(hashes, pool.ids)
    if duplicate is not None:
        id, first, second = duplicate
        raise PoolError(
            f"{pool.uri}: the id {id!r} is that of image {first + 1} and of image {second + 1}; "
            "ids are unique in a pool: rename one of the two"
        )


def first_duplicate(ids: Callable[[], Iterator[str]]) -> tuple[str, int, int] | None:
    """The first id that occurred before, and both its positions from 0; None when all differ.

    Args:
        ids: gives them, the same each time; it is called a second time only when two have the same
            64-bit hash.
    """
    return _first_of(array("q", map(hash, ids())), ids)


def _first_of(hashes: array[int], ids: Callable[[], Iterator[str]]) -> tuple[str, int, int] | None:
    ordered = np.sort(np.frombuffer(hashes, np.int64)) if hashes else np.empty(0, np.int64)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return None
    seen: dict[str, int] = {}
    for position, id in enumerate(ids()):
        if hash(id) in suspects and seen.setdefault(id, position) != position:
            return id, seen[id], position
    return None
