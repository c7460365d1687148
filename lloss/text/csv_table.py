"""CSV as text: written so that it reads back, and read strictly, so that no row gets lost.

The grammar, a record a line::

    file   = header (end record)* [end]        end = LF | CRLF | CR; blank lines are skipped
    record = field ("," field)*                as many fields as the header has
    field  = '"' (any but '"' | '""')* '"' | (any but '"' and ",")*

That is RFC 4180 without line breaks inside quotes: a stray quote would swallow the rows up to the
next one, and no reader can distinguish the two.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from lloss.errors import LabelError, LlossError
from lloss.text.clean_names import stripped

_BREAKS = re.compile(r"[\r\n\0]")

_FIELD = re.compile(r',("[^"]*(?:""[^"]*)*"|[^",]*)')

_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what errors="surrogateescape" makes of a broken byte

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}

_SHOWN = 100


def csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Write CSV with plain line ends.

    A line break or a NUL in a field is a LabelError, since :class:`Table` would refuse it.
    """
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    for row in (header, *map(tuple, rows)):
        broken = next((str(field) for field in row if _BREAKS.search(str(field))), None)
        if broken is not None:
            raise LabelError(
                f"{shortened(broken)!r} has a line break or a NUL in it, which a line of CSV "
                "cannot hold: rename it, or choose another format"
            )
        plain.writerow(row)
    return text.getvalue()


def text_lines(file: IO[bytes], origin: str, error: type[LlossError]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 text with their numbers from 1, without their ends.

    Lines end in LF, CRLF or CR alone: other separators of ``str.splitlines`` may stand in names. A
    byte order mark at the beginning is dropped. ``error`` where it is not UTF-8, or has a NUL.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    for number, line in enumerate(text, 1):
        line = line.removeprefix("\ufeff") if number == 1 else line
        wrong = None if line.isascii() else _NOT_UTF8.search(line)
        if wrong is not None:
            byte = ord(wrong.group()) & 0xFF
            raise error(
                f"{origin}, line {number}: is not UTF-8 text (byte 0x{byte:02x}); save it as "
                'UTF-8 (Excel: "CSV UTF-8")'
            )
        if "\0" in line:
            raise error(
                f"{origin}, line {number}: holds a NUL, as UTF-16 text and binary files do; give "
                'text in UTF-8 (Excel: "CSV UTF-8")'
            )
        yield number, line.rstrip("\r\n")


class Table:
    """A CSV with a header; iterating gives the line number and the fields of each row.

    ``header`` holds the stripped names of the columns. ``error``, with the line, for what the
    module's grammar does not have, and for a repeated header.
    """

    def __init__(self, file: IO[bytes], origin: str, error: type[LlossError]) -> None:
        self.origin, self._error = origin, error
        self._lines = text_lines(file, origin, error)
        number, self._first = next(self._filled(), (0, ""))
        self._fields = self._parsed(number, self._first) if self._first else []
        self.header = tuple(map(stripped, self._fields))
        # The first column may hold row numbers, as pandas writes them.
        self._nameless = [place for place, name in enumerate(self.header) if place and not name]

    def column(self, name: str) -> int | None:
        """The place of a column, whose name is written in any case; None without one."""
        found = [place for place, one in enumerate(self.header) if one.casefold() == name]
        if len(found) > 1:
            both = " and ".join(repr(self.header[place]) for place in found[:2])
            raise self._error(f"{self.origin}: has the columns {both}; rename one or remove it")
        return found[0] if found else None

    def needed(self, *names: str) -> tuple[int, ...]:
        """The places of columns; an error where one is missing."""
        places = [self.column(name) for name in names]
        if None not in places:
            return tuple(place for place in places if place is not None)
        wanted = " and ".join(map(repr, names))
        found = shortened(", ".join(self.header)) or "an empty file"
        by = next((by for mark, by in _SEPARATORS.items() if mark in self._first), None)
        remedy = f"it is separated by {by}: save it with commas" if by else ""
        remedy = remedy or "give a CSV with a header"
        raise self._error(f"{self.origin}: needs a column {wanted} (found: {found}); {remedy}")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in self._filled():
            fields = self._parsed(number, line) if '"' in line else line.split(",")
            if len(fields) != len(self.header):
                raise self._wrong(number, self._uneven(fields, line))
            if fields == self._fields or line.removeprefix("\ufeff") == self._first:
                raise self._wrong(
                    number, "repeats the header, as files do that were joined; remove that line"
                )
            if any(fields[place].strip() for place in self._nameless):
                raise self._wrong(number, "has a value in a column without a name; name it")
            yield number, fields

    def _filled(self) -> Iterator[tuple[int, str]]:
        return ((number, line) for number, line in self._lines if line.strip())

    def _parsed(self, number: int, line: str) -> list[str]:
        fields = _FIELD.findall(f",{line}")
        if ",".join(fields) != line:
            raise self._wrong(
                number,
                f"has a stray double quote: {shortened(line)!r}; quotes enclose a whole field in "
                "one line, and a quote within is doubled",
            )
        return [field[1:-1].replace('""', '"') if field[:1] == '"' else field for field in fields]

    def _uneven(self, fields: Sequence[str], line: str) -> str:
        names = shortened(", ".join(self.header))
        many = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
        shown = f"has {many}, the header has {len(self.header)} ({names}): {shortened(line)!r}"
        if len(fields) > len(self.header):
            return f"{shown}; put a value with a comma in it into double quotes"
        return f"{shown}; write a field for each column, with commas between them"

    def _wrong(self, number: int, what: str) -> LlossError:
        return self._error(f"{self.origin}, line {number}: {what}")


def shortened(text: str, most: int = _SHOWN) -> str:
    """The text with an ellipsis where it is longer than messages should be."""
    return text if len(text) <= most else text[: most - 1] + "…"
