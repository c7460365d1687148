"""Progress on stderr: a bar on a terminal; in a log file, a line every 30 seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

EVERY = 30.0  # Seconds between two lines

_LINE = "{desc}{n_fmt} of {total_fmt} {unit}, {elapsed} elapsed, {remaining} left{postfix}"


class _Lines:
    """Ends each state of a bar as a line, instead of overwriting it."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write the state without what positions the cursor."""
        if state := text.strip():
            self.file.write(f"{state}\n")

    def flush(self) -> None:
        """Pass it on."""
        self.file.flush()


def progress(
    items: Iterable[Any] | None = None, desc: str = "", total: int | None = None, **options: Any
) -> tqdm[Any]:
    """Return tqdm's bar; it writes lines where stderr is not a terminal.

    What takes less than :data:`EVERY` seconds writes none there.
    """
    described = f"{desc}: "  # as tqdm.set_description does
    if sys.stderr.isatty():
        return tqdm(items, described, total, **options)
    # miniters: tqdm would guess how many iterations 30 seconds have, and wait for so many.
    lines: dict[str, Any] = {
        "file": _Lines(sys.stderr), "delay": EVERY, "mininterval": EVERY, "miniters": 1,
        "bar_format": _LINE, "leave": False,
    }  # fmt: skip
    return tqdm(items, described, total, **{**options, **lines})
