"""CSV as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable


def csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """CSV with plain line ends that any reader reads back, whatever a field holds."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *map(tuple, rows)):
        # The plain writer quotes a line feed, but not a lone carriage return.
        (quoted if any("\r" in str(field) for field in row) else plain).writerow(row)
    return text.getvalue()
