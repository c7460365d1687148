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
    """What means the same from a folder: a path that exists becomes relative to it."""
    path, mark, option = written.partition("?")
    if Path(written).exists():
        path, mark, option = written, "", ""
    if is_fiftyone(written) or written.startswith("~") or not Path(path).exists():
        return written
    return os.path.relpath(path, folder) + mark + option
