"""Find an id that occurs twice, in eight bytes an id."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from lloss.errors import PoolError
from lloss.pools.pool import Pool


def refuse_duplicates(pool: Pool) -> None:
    """Raise PoolError where an id occurs twice. Pools with :attr:`Pool.unique` are not listed."""
    duplicate = None if pool.unique else first_duplicate(pool.ids)
    if duplicate is not None:
        raise PoolError(
            f"{pool.uri}: the id {duplicate!r} comes twice; ids are unique in a pool: rename one "
            "of the two"
        )


def first_duplicate(ids: Callable[[], Iterable[str]]) -> str | None:
    """The first id that occurred before; None when all differ.

    ``ids`` gives the same each time; it is called again only when two have the same 64-bit hash.
    """
    hashes = np.fromiter(map(hash, ids()), np.int64)
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: set[str] = set()
    for id in ids() if suspects else ():
        if id in seen:
            return id
        if hash(id) in suspects:
            seen.add(id)
    return None
