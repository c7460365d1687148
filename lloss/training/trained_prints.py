"""What near-duplicates of a run's images are known by, kept in its folder.

::

    RUN/prints.npz      `keys` int64 [M] and `middles` float16 [M, 192], 400 bytes an image

So the images that were trained on are decoded once, also where many cycles train on them.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lloss.data.image_overlap import trace
from lloss.data.near_copies import Middles, middles_of
from lloss.files import atomic_write
from lloss.pools import Item

PRINTS = "prints.npz"


def keep_prints(run: Path, items: Sequence[Item], known: Path | None = None) -> None:
    """Write the prints of the images that ``run`` was trained on.

    Those that the run ``known`` has of the same images are taken from there.
    """
    keys = np.array([_key(item) for item in items], np.int64)
    middles = np.zeros((len(items), middles_of([]).shape[1]), np.float16)
    new = np.ones(len(items), bool)
    if known is not None and (found := _read(known)) is not None and len(found[0]):
        order = np.argsort(found[0])
        places = order[np.searchsorted(found[0], keys, sorter=order).clip(max=len(order) - 1)]
        new = found[0][places] != keys
        middles[~new] = found[1][places[~new]]
    rows = np.flatnonzero(new).tolist()
    middles[rows] = middles_of([items[row] for row in rows])
    _write(run, keys, middles)


def add_prints(run: Path, start: Path) -> None:
    """Add those that a warm start's run was trained on: the weights have seen these images too."""
    own, others = _read(run), _read(start if start.is_dir() else start.parent)
    if own is None or others is None:
        return
    more = ~np.isin(others[0], own[0])
    if more.any():
        both = [np.concatenate([mine, theirs[more]]) for mine, theirs in zip(own, others)]
        _write(run, both[0], both[1].astype(np.float16))


def read_prints(run: Path) -> Middles | None:
    """Read the prints of the images that a run was trained on; None where there are none."""
    found = _read(run)
    return None if found is None else found[1]


def _key(item: Item) -> int:
    """Of the image's id as well: a trace is of the middle of a file alone."""
    shown = item.id.encode("utf-8", "surrogateescape") + b"\0" + (trace(item) or b"")
    return int.from_bytes(hashlib.blake2b(shown, digest_size=8).digest(), "little", signed=True)


def _read(run: Path) -> tuple[NDArray[np.int64], Middles] | None:
    try:
        with np.load(run / PRINTS, allow_pickle=False) as kept:
            keys, middles = kept["keys"], kept["middles"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if len(keys) != len(middles) or middles.shape[1:] != middles_of([]).shape[1:]:
        return None
    return keys, middles


def _write(run: Path, keys: NDArray[np.int64], middles: Middles) -> None:
    with atomic_write(run / PRINTS) as aside, aside.open("wb") as file:
        np.savez(file, keys=keys, middles=middles)
