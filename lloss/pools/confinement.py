"""Folders and URLs that the files of pools must be in, wherever links, lists and tables lead to.

A file is checked when it is open, by where it really is: to exchange a link between a check and
the opening gains nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

OUTSIDE = "leads outside of the allowed pool folders"


class Confinement:
    """Folders, whose links are resolved now, and URLs that all files of a pool must be below."""

    def __init__(self, folders: Iterable[str | Path], urls: Iterable[str] = ()) -> None:
        self.folders = tuple(os.path.realpath(folder) for folder in folders)
        self.urls = tuple(url.rstrip("/") for url in urls)
        self._below = tuple(f"{folder.rstrip('/')}/" for folder in self.folders)

    def holds_path(self, path: str | bytes | Path) -> bool:
        """Whether a path leads below one of the folders now, or to one."""
        try:
            return self._holds(os.path.realpath(os.fsdecode(path)))
        except (OSError, ValueError):  # a NUL in it
            return False

    def holds_file(self, file: int, path: str | bytes | Path) -> bool:
        """Whether an open file, by its descriptor and path, is below one of the folders."""
        try:
            return self._holds(os.readlink(f"/proc/self/fd/{file}"))  # noqa: PTH115  for speed
        except OSError:  # no such file system here
            pass
        try:
            real = os.path.realpath(os.fsdecode(path))
            return self._holds(real) and os.path.samestat(os.stat(real), os.fstat(file))  # noqa: PTH116
        except OSError:
            return False

    def holds_object(self, files: Any, path: str) -> bool:
        """Whether a path of an fsspec file system is below one of the URLs."""
        if {".", ".."} & set(unquote(path).split("/")):
            return False
        protocols = (files.protocol,) if isinstance(files.protocol, str) else files.protocol
        urls = (url for url in self.urls if url.partition("://")[0] in protocols)
        folders = (files._strip_protocol(url).rstrip("/") for url in urls)
        return any(path == folder or path.startswith(f"{folder}/") for folder in folders)

    def _holds(self, real: str) -> bool:
        return real.startswith(self._below) or real in self.folders
