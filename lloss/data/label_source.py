"""What ``--labels`` may be besides a path: a path with an option, or a dataset of FiftyOne."""

from __future__ import annotations

import os
from pathlib import Path

from lloss.pools.uri import is_fiftyone


def split_option(source: str | Path, name: str) -> tuple[Path, str]:
    """The path, and the value of the option behind ``?name=``; "" without it."""
    head, mark, value = str(source).rpartition(f"?{name}=")
    return (Path(head), value) if mark and not Path(source).exists() else (Path(source), "")


def relative_source(written: str, folder: Path) -> str:
    """What means the same from a folder: a path becomes relative to it, whether it exists or not.

    A path from the home directory on stays as it is.
    """
    path, mark, option = written.partition("?")
    if Path(written).exists():
        path, mark, option = written, "", ""
    if is_fiftyone(written) or written.startswith("~"):
        return written
    return os.path.relpath(path, folder) + mark + option


def nothing_in(labels: Path) -> bool:
    """Whether labels do not exist yet: no such file, one of white space alone, an empty folder."""
    if is_fiftyone(labels):
        return False
    for path in (labels, Path(str(labels).rpartition("?")[0] or labels)):
        if path.is_dir():
            return not any(path.iterdir())
        if path.is_file():
            with path.open("rb") as file:
                return not file.read(1 << 16).strip()
    return True
