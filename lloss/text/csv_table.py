"""CSV as text: written so that it reads back, and read strictly, so that no row gets lost.

The grammar, a record a line::

    file   = ["sep=" s end] header (end record)* [end]
    record = field (s field)*                  as many fields as the header has
    field  = '"' (any but '"' | '""')* '"' | (any but '"' and s)*
    s      = "," | ";" | tab | "|"             the only one in the header
    end    = LF | CRLF | CR                    blank lines are skipped

With commas that is RFC 4180 without line breaks inside quotes: a stray quote would swallow the rows
up to the next one, and no reader can distinguish the two. Excel writes the line ``sep=;``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from lloss.errors import LabelError, LlossError
from lloss.text.clean_names import stripped
from lloss.text.counts import counted

_BREAKS = re.compile(r"[\r\n\0]")

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

_FIELDS = {
    mark: re.compile(rf"{re.escape(mark)}(\"[^\"]*(?:\"\"[^\"]*)*\"|[^\"{re.escape(mark)}]*)")
    for mark in _SEPARATORS
}

_QUOTED = re.compile('"[^"]*"')
_SEP = re.compile('"?sep=(.)"?', re.IGNORECASE)

_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what errors="surrogateescape" makes of a broken byte

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

    ``header`` holds the stripped names of the columns, ``separator`` what stands between them.
    ``error``, with the line, for what the grammar above does not have, and for a second header.
    """

    def __init__(self, file: IO[bytes], origin: str, error: type[LlossError]) -> None:
        self.origin, self._error = origin, error
        self._lines = text_lines(file, origin, error)
        number, self._first = next(self._filled(), (0, ""))
        self.separator = self._separator(number)
        if _SEP.fullmatch(self._first):
            number, self._first = next(self._filled(), (0, ""))
        self._fields = self._parsed(number, self._first) if self._first else []
        self.header = tuple(map(stripped, self._fields))
        # The first column may hold row numbers, as pandas writes them.
        self._nameless = [place for place, name in enumerate(self.header) if place and not name]

    @property
    def separated(self) -> str:
        """What stands between the fields, in words."""
        return _SEPARATORS[self.separator]

    def _separator(self, number: int) -> str:
        """The mark that Excel's first line gives, or the only one of the header.

        A comma comes before others, which may be part of a name.
        """
        if given := _SEP.fullmatch(self._first):
            if given[1] not in _SEPARATORS:
                raise self._wrong(number, f"{self._first!r}: save it with commas or semicolons")
            return given[1]
        plain = _QUOTED.sub("", self._first)
        found = [mark for mark in _SEPARATORS if mark in plain]
        if len(found) > 1 and found[0] != ",":
            both = " and ".join(_SEPARATORS[mark] for mark in found)
            raise self._wrong(number, f"has {both} between its names; use one of them")
        return found[0] if found else ","

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
        other = next((m for m in _SEPARATORS if m in self._first and m != self.separator), "")
        remedy = f"begin it with the line sep={other}" if other else "give a CSV with a header"
        raise self._error(f"{self.origin}: needs a column {wanted} (found: {found}); {remedy}")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in self._filled():
            fields = self._parsed(number, line) if '"' in line else line.split(self.separator)
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
        fields = _FIELDS[self.separator].findall(self.separator + line)
        if self.separator.join(fields) != line:
            raise self._wrong(
                number,
                f"has a stray double quote: {shortened(line)!r}; quotes enclose a whole field in "
                "one line, and a quote within is doubled",
            )
        return [field[1:-1].replace('""', '"') if field[:1] == '"' else field for field in fields]

    def _uneven(self, fields: Sequence[str], line: str) -> str:
        names = shortened(", ".join(self.header))
        many = counted(len(fields), "field")
        shown = f"has {many}, the header has {len(self.header)} ({names}): {shortened(line)!r}"
        if len(fields) > len(self.header):
            return f"{shown}; fields are separated by {self.separated}: quote a value that has one"
        return f"{shown}; write a field for each column, with {self.separated} between them"

    def _wrong(self, number: int, what: str) -> LlossError:
        return self._error(f"{self.origin}, line {number}: {what}")


def shortened(text: str, most: int = _SHOWN) -> str:
    """The text with an ellipsis where it is longer than messages should be."""
    return text if len(text) <= most else text[: most - 1] + "…"
