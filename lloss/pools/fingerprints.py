"""Digests that distinguish the files of a pool from others of the same names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lloss.pools.storage import StoragePath

_AT_ONCE = 16
"""Files looked at together: each costs a network a round trip, and a pool has ten thousand."""


def files_fingerprint(files: Sequence[StoragePath]) -> str:
    """Digest the names of these files and :meth:`StoragePath.fingerprint` of each.

    Names count from the folder that all of the files share, so that a pool that was moved or
    copied as a whole keeps its digest.
    """
    paths = [file.parts for file in files]
    shared = len(os.path.commonprefix(paths))  # noqa: RUF071  of tuples
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_AT_ONCE, "lloss-fingerprints") as threads:
        for path, sample in zip(paths, threads.map(lambda file: file.fingerprint(), files)):
            name = "/".join(path[shared:])
            digest.update(repr((name, sample)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def content_fingerprint(file: StoragePath) -> str:
    """The SHA-256 of a whole file."""
    digest = hashlib.sha256()
    with file.open() as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
