"""Where images come from.

A pool is a fixed order of items, each an id and a way to read the image. Listing a pool reads no
image, so that a pool of millions costs what its listing costs, and any item can be read by any
thread. Kinds are told apart by :func:`open_pool`; a new kind (tar shards, Parquet, object stores)
is one more module here with a subclass of :class:`Pool`.
"""

from __future__ import annotations

import os
from pathlib import Path

from lloss.errors import PoolError
from lloss.pools.arrays import ArrayPool, load_array
from lloss.pools.base import Chunk, Item, Pool, RestPool
from lloss.pools.folder import SUFFIXES, FolderPool
from lloss.pools.lists import ListPool

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
    "open_pool",
]


def open_pool(uri: str | Path) -> Pool:
    """Open a folder, a ``.npy``/``.npz`` array, or a ``.txt``/``.csv`` list of paths.

    Raises:
        PoolError: nothing is there, it is of no known kind, or it holds no image.
    """
    path = Path(uri)
    pool = _opened(path)
    if next(iter(pool), None) is None:
        kinds = " ".join(sorted(SUFFIXES))
        looked = f" (looked for {kinds})" if path.is_dir() else ""
        raise PoolError(f"{path}: the pool holds no image{looked}")
    return pool


def _opened(path: Path) -> Pool:
    if os.path.isdir(path):  # noqa: PTH112  Path.is_dir() raises on a long name
        return FolderPool(path)
    if not os.path.exists(path):  # noqa: PTH110
        raise PoolError(f"{path}: no such pool; give a folder, .npy, .npz, .txt or .csv")
    if path.suffix in (".npy", ".npz"):
        return ArrayPool(load_array(path, "images"), str(path))
    if path.suffix in (".txt", ".csv"):
        return ListPool(path)
    raise PoolError(f"{path}: no known kind of pool; give a folder, .npy, .npz, .txt or .csv")
