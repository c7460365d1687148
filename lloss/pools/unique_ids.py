"""Ids of a pool, each of one image."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from lloss.errors import PoolError
from lloss.pools.duplicate_ids import duplicate_among
from lloss.pools.pool import Pool


def unique_ids(pool: Pool) -> Iterator[str]:
    """The ids of a pool, in its order; at the end they are known to differ.

    Raises:
        PoolError: an id came twice. A pool that has no doubled ids by how they are made
            (:attr:`Pool.unique`) is not looked at; others take eight bytes an id.
    """
    if pool.unique:
        yield from pool.ids()
        return
    hashes = array("q")
    for id in pool.ids():
        hashes.append(hash(id))
        yield id
    found = duplicate_among(hashes, pool.ids)
    if found is not None:
        id, first, second = found
        raise PoolError(
            f"{pool.uri}: the id {id!r} is that of image {first + 1} and of image {second + 1}; "
            "ids are unique in a pool: rename one of the two"
        )
