"""What is done about a broken annotation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from lloss.errors import LabelError

SHOWN = 3
"""Broken annotations that a summary names; the first tell what kind they are."""


@dataclass
class Problems:
    """Stops at the first broken annotation, or counts them while they are left out.

    Attributes:
        skip: leave broken annotations out instead of stopping.
        found: each broken annotation so far, with its place.
        notes: what the user should know although nothing is broken, each one whole line.
        doubts: why not to rely on the network, each one whole line.
        unread: by file or folder of labels, the names of each image whose label was left out.
        remedy: what has broken annotations left out.
    """

    skip: bool = False
    found: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remedy: str = "--skip-bad"
    doubts: list[str] = field(default_factory=list)
    unread: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)

    def leave_out(self, origin: str, *names: str) -> None:
        """Note the names of an image whose label was reported, so that no other label of it counts.

        Args:
            origin: the file or folder of the labels.
            names: as a label that can be read would have them.
        """
        self.unread.setdefault(origin, set()).add(names)

    def note(self, line: str) -> None:
        """Keep a line for the user, once; an empty one is none."""
        if line and line not in self.notes:
            self.notes.append(line)

    def lines(self) -> list[str]:
        """Everything to print: the summary of what was left out, then the notes."""
        return [*filter(None, [self.summary()]), *self.notes]

    def report(self, where: str, what: str) -> None:
        """Tell of an annotation that cannot be used; return when it is to be left out.

        Args:
            where: file and line, or file and key: ``a.xml, line 12``, ``a.json: annotations[3]``.
            what: is wrong with it, with the value.

        Raises:
            LabelError: broken annotations are not to be left out.
        """
        self.found.append(f"{where}: {what}")
        if not self.skip:
            raise LabelError(f"{where}: {what}; mend it, or leave such out with {self.remedy}")

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Where the block finds no label that can be used, say what was left out until then.

        Raises:
            LabelError: the block's, with the summary.
        """
        try:
            yield
        except LabelError as error:
            summary = self.summary() if self.skip else ""
            if not summary or summary in str(error):
                raise
            raise LabelError(f"{error}; {summary}") from error

    def summary(self) -> str:
        """One line on what was left out, "" if nothing was."""
        if not self.found:
            return ""
        rest = len(self.found) - SHOWN
        shown = "; ".join(self.found[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
        many = "annotations" if len(self.found) > 1 else "annotation"
        return f"left out {len(self.found)} broken {many}: {shown}"
