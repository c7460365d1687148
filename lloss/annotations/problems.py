"""Broken annotations: they stop the reading, or are left out and counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from lloss.errors import LabelError
from lloss.text.counts import counted

SHOWN = 3  # Broken annotations that a summary names


class AnnotationError(Exception):
    """An annotation that cannot be used; :meth:`Problems.skipping` catches it.

    ``where`` is file and line, or file and key: ``a.xml, line 12``, ``a.json:
    annotations[3].bbox``; ``what`` is wrong there, with the value.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class EmptyBoxError(AnnotationError):
    """A box without area: it marks no pixel, so that leaving it out hides no object."""


@dataclass
class Problems:
    """Collects notes, and broken annotations; stops at the first of these unless ``skip``."""

    skip: bool = False
    broken: list[str] = field(default_factory=list)  # each so far, with its place
    notes: list[str] = field(default_factory=list)  # lines for the user
    remedy: str = "--skip-bad"  # the option that leaves broken annotations out; "" without one
    warnings: list[str] = field(default_factory=list)  # why not to rely on the network
    # By file or folder of labels, the name of each image whose label was left out
    unusable: dict[str, set[str]] = field(default_factory=dict)

    def mark_unusable(self, origin: str, name: str) -> None:
        """Record the image of a broken label: no other label of it counts."""
        self.unusable.setdefault(origin, set()).add(name)

    def note(self, line: str) -> None:
        """Keep a line for the user, once; ignore an empty one."""
        if line and line not in self.notes:
            self.notes.append(line)

    def lines(self) -> list[str]:
        """Everything to print: the summary of what was left out, then the notes."""
        return [*filter(None, [self.summary()]), *self.notes]

    def report(self, where: str, what: str) -> None:
        """Count a broken annotation, or stop with it."""
        self.broken.append(f"{where}: {what}")
        if not self.skip:
            remedy = f"fix it, or leave out broken annotations with {self.remedy}"
            raise LabelError(f"{where}: {what}" + (f"; {remedy}" if self.remedy else ""))

    @contextlib.contextmanager
    def skipping(self, origin: str = "", name: str = "") -> Iterator[None]:
        """Report an :class:`AnnotationError` of the block, and go on behind the block.

        It is of the image ``name`` of ``origin``, if they are given: see :meth:`mark_unusable`.
        """
        try:
            yield
        except AnnotationError as error:
            if name:
                self.mark_unusable(origin, name)
            self.report(error.where, error.what)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Add the summary of what was left out to a :class:`LabelError` of the block."""
        try:
            yield
        except LabelError as error:
            summary = self.summary() if self.skip else ""
            if not summary or summary in str(error):
                raise
            raise LabelError(f"{error}; {summary}") from error

    def summary(self) -> str:
        """One line on what was left out, "" if nothing was."""
        if not self.broken:
            return ""
        rest = len(self.broken) - SHOWN
        shown = "; ".join(self.broken[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
        return f"left out {counted(len(self.broken), 'broken annotation')}: {shown}"


def note_predictions(origin: str, count: int, total: int, what: str, problems: Problems) -> None:
    """Note labels that look as if a network had found them."""
    if count:
        problems.note(
            f"{origin}: {count} of {total} {what}, as what a network finds: they count as labels; "
            "let a person check them first"
        )
