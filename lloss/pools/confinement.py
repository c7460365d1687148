"""Where files of pools may lie, wherever links, lists and tables lead to.

Whoever opens pools for others gives a :class:`Confinement` to :func:`lloss.pools.open_pool`: what
the pool reads is then checked when it is open, by where it really is. A link that is exchanged
between a look and the opening gains nothing by that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

OUTSIDE = "leads outside of where pools may lie"


class Confinement:
    """Folders and URL prefixes that all files of a pool must lie below.

    Args:
        folders: of this machine; links in them are resolved now.
        urls: such as ``s3://bucket/pools``.
    """

    def __init__(self, folders: Iterable[str | Path], urls: Iterable[str] = ()) -> None:
        self.folders = tuple(os.path.realpath(folder) for folder in folders)
        self.urls = tuple(url.rstrip("/") for url in urls)
        self._below = tuple(f"{folder.rstrip('/')}/" for folder in self.folders)

    def holds_path(self, path: str | bytes | Path) -> bool:
        """Whether what lies at a path now lies in one of the folders, or is one."""
        try:
            return self._holds(os.path.realpath(os.fsdecode(path)))
        except (OSError, ValueError):  # a NUL in it
            return False

    def holds_file(self, file: int, path: str | bytes | Path) -> bool:
        """Whether an open file lies in one of the folders.

        Args:
            file: its descriptor.
            path: it was opened by.
        """
        try:
            return self._holds(os.readlink(f"/proc/self/fd/{file}"))  # noqa: PTH115  in a hurry
        except OSError:  # no such file system here
            pass
        try:
            real = os.path.realpath(os.fsdecode(path))
            return self._holds(real) and os.path.samestat(os.stat(real), os.fstat(file))  # noqa: PTH116
        except OSError:
            return False

    def holds_object(self, files: Any, path: str) -> bool:
        """Whether a path of an fsspec file system lies below one of the URLs."""
        known = (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
        if {".", ".."} & set(unquote(path).split("/")):
            return False
        return any(
            _is_below(path, files._strip_protocol(url))
            for url in self.urls
            if url.partition("://")[0] in known
        )

    def _holds(self, real: str) -> bool:
        return real.startswith(self._below) or real in self.folders


def _is_below(path: str, folder: str) -> bool:
    folder = folder.rstrip("/")
    return path == folder or path.startswith(f"{folder}/")
