"""What tells the files of a pool from others of the same names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lloss.pools.storage import StoragePath

_AT_ONCE = 16
"""Files looked at together: each costs a network a round trip, and a pool has ten thousand."""


def file_prints(places: Sequence[StoragePath]) -> str:
    """A digest of the names of these files and of :meth:`StoragePath.trace` of each.

    Names count from the folder that all of the files share, so that a pool that was moved or
    copied as a whole keeps its digest.

    Raises:
        PoolError: a file is gone or cannot be read.
    """
    paths = [place.parts for place in places]
    shared = _shared(paths)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_AT_ONCE, "lloss-prints") as threads:
        for path, trace in zip(paths, threads.map(lambda place: place.trace(), places)):
            digest.update(
                repr(("/".join(path[shared:]), trace)).encode("utf-8", "backslashreplace")
            )
    return digest.hexdigest()


def content_print(place: StoragePath) -> str:
    """The SHA-256 of a whole file.

    Raises:
        PoolError: it is gone or cannot be read.
    """
    digest, file = hashlib.sha256(), place.open()
    with file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """How many first parts all of the paths have in common; all of them where there is one path."""
    first, last = min(paths), max(paths)
    differs = (n for n, (one, other) in enumerate(zip(first, last)) if one != other)
    return next(differs, min(len(first), len(last)))
