"""Pools: images in a fixed order, each an id and a way to read it.

Listing a pool reads no image (but see ``Pool.streamed``), and any thread can read any item. A new
kind is a subclass of :class:`Pool`, written against ``storage.StoragePath`` so that it works on
object stores too, and a row of ``POOL_KINDS`` in ``open``.
"""

from __future__ import annotations

from lloss.pools.array_pool import ArrayPool, load_array, open_array
from lloss.pools.folder_pool import FolderPool
from lloss.pools.open import open_pool
from lloss.pools.pool import Chunk, Item, Pool, refuse_duplicates
from lloss.pools.subset_pool import SubsetPool

__all__ = [
    "ArrayPool",
    "Chunk",
    "FolderPool",
    "Item",
    "Pool",
    "SubsetPool",
    "load_array",
    "open_array",
    "open_pool",
    "refuse_duplicates",
]
