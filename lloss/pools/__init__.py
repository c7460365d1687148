"""Where images come from.

A pool is a fixed order of items, each an id and a way to read the image. Listing a pool reads no
image (but see ``Pool.streamed``), so that a pool of millions costs what its listing costs, and any
item can be read by any thread. Kinds are told apart by :func:`open_pool`; a new kind is one more
module here with a subclass of :class:`Pool`, written against ``places.Place`` so that it works on
object stores too.
"""

from __future__ import annotations

from lloss.pools.arrays import ArrayPool, load_array, open_array
from lloss.pools.base import Chunk, Item, Pool
from lloss.pools.folder import SUFFIXES, FolderPool
from lloss.pools.open import open_pool
from lloss.pools.path_list import ListPool
from lloss.pools.subset import RestPool
from lloss.pools.unique_ids import unique_ids

__all__ = [
    "SUFFIXES",
    "ArrayPool",
    "Chunk",
    "FolderPool",
    "Item",
    "ListPool",
    "Pool",
    "RestPool",
    "load_array",
    "open_array",
    "open_pool",
    "unique_ids",
]
