"""Labels of whole images as CSV: a column of images, and one of classes or a column for each."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, stripped
from lloss.text.counts import part
from lloss.text.csv_table import Table, csv_text, shortened
from lloss.text.first_names import first_names

IDS = (
    "id", "file_name", "filename", "image", "img", "file", "path", "filepath", "file_path",
    "image_path", "image_name", "image_id",
)  # fmt: skip
"""Columns of images; the first two before others."""

CLASSES = ("label", "class", "category", "target", "class_name", "label_name")
"""Columns of classes; the first before others."""

_USUAL = (["id", "label"], ["file_name", "label"], ["id"])
"""Columns that need no note."""

_SPLITS = ("split", "set", "subset", "partition", "fold", "usage")
"""Columns that look as if they said which rows to train on."""


def labels_text(labels: Mapping[str, str]) -> str:
    """Write labels by id as CSV."""
    return csv_text(("id", "label"), labels.items())


def read_labels(
    path: Path, needs_label: bool = True, problems: Problems | None = None
) -> dict[str, str]:
    """Read a CSV (UTF-8, with a header) of images and their classes; see :func:`parse_labels`.

    Without ``needs_label`` images alone will do.
    """
    columns = "the columns 'id' and 'label'" if needs_label else "a column 'id'"
    with open_csv(path, columns) as file:
        return parse_labels(file, str(path), needs_label, problems)


def open_csv(path: Path, columns: str) -> IO[bytes]:
    """Open a CSV that has these ``columns``; a LabelError if it cannot be read."""
    try:
        return io.BytesIO(path.read_bytes())
    except FileNotFoundError as error:
        raise LabelError(f"{path}: no such file; it needs {columns}") from error
    except IsADirectoryError as error:
        raise LabelError(f"{path}: is a folder; give a CSV with {columns}") from error
    except OSError as error:
        reason = error.strerror or error
        raise LabelError(f"{path}: cannot be read as CSV: {reason}") from error


def parse_labels(
    file: IO[bytes],
    origin: str,
    needs_label: bool | None,
    problems: Problems | None = None,
    blank: bool = False,
) -> dict[str, str]:
    """Parse labels by id: the columns are ``id`` and ``label``, or the one of :data:`IDS` and the
    one of :data:`CLASSES`.

    Without a column of classes, columns of 0 and 1 are a class each, as Roboflow writes them.
    ``needs_label`` None asks for labels where there is a column of them, in which ``blank`` allows
    empty ones. An empty field and a repeated id are refused. Notes name the columns that were read
    if they are others, and ignored ones that may matter.
    """
    problems = problems or Problems()
    table = Table(file, origin, LabelError)
    label_at = None if needs_label is False else find_column(table, CLASSES, 1)
    id_at = find_column(table, IDS, 2)
    if id_at is None:
        id_at, *_ = table.needed("id", "label") if needs_label else table.needed("id")
    if label_at is None and needs_label:
        return _one_hot(table, id_at, problems)
    optional, needs_label = needs_label is None, needs_label or label_at is not None
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in table:
        id, label = row[id_at], "" if label_at is None else clean_name(row[label_at])
        if not stripped(id) or (needs_label and not label and not blank):
            raise LabelError(
                f"{origin}, line {line}: an empty id or label; write both or remove the row"
            )
        if id in labels and needs_label:
            raise _twice(table, id, lines[id], line)
        labels[id], lines[id] = label, line
    if needs_label or optional:
        note_columns(table, [one for one in (id_at, label_at) if one is not None], problems)
    return labels


def find_column(table: Table, names: Sequence[str], preferred: int) -> int | None:
    """The place of the column with one of these names; refuse several but a preferred one."""
    found = [name for name in names if table.column(name) is not None]
    if len(found) > 1 and found[0] not in names[:preferred]:
        both = " or ".join(map(repr, found))
        what = f"is it the column {both}? Call the right one {names[0]!r}"
        raise LabelError(f"{table.origin}: {what}")
    return table.column(found[0]) if found else None


def needed_column(table: Table, names: Sequence[str], preferred: int) -> int:
    """As :func:`find_column`, and refuse a table without one."""
    place = find_column(table, names, preferred)
    return table.needed(names[0])[0] if place is None else place


def note_columns(table: Table, read: Sequence[int], problems: Problems) -> None:
    """Note which columns are read if they are not the usual ones, and ignored ones that matter."""
    names = [table.header[place] for place in read]
    shown = " and ".join(names)
    which = f"column{'s' * (len(names) > 1)} {shown}"
    if table.separator != ",":
        problems.note(f"{table.origin}: separated by {table.separated}; read: {shown}")
    elif [name.lower() for name in names] not in _USUAL:
        problems.note(f"{table.origin}: read: the {which}")
    watched = {*_SPLITS, *IDS, *CLASSES} - {name.lower() for name in names} - {"id"}
    if ignored := [name for name in table.header if name.lower() in watched]:
        only = f"only the {which} {'are' if len(names) > 1 else 'is'} read"
        problems.note(
            f"{table.origin}: {only}, not {', '.join(ignored)}: all rows are labels of the images "
            f"that {names[0]} names"
        )


def _one_hot(table: Table, id_at: int, problems: Problems) -> dict[str, str]:
    """Read a table with a column of 0 and 1 for each class; a row of 0 is not labeled yet."""
    classes = {at: clean_name(name) for at, name in enumerate(table.header) if at != id_at}
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    rows = unlabeled = 0
    for line, row in table:
        rows += 1
        values = {at: row[at].strip() for at in classes}
        if len(classes) < 2 or not set(values.values()) <= {"0", "1"}:
            table.needed(table.header[id_at].lower(), "label")  # neither kind of table: refuse it
        id, chosen = row[id_at], [classes[at] for at, value in values.items() if value == "1"]
        if lines.setdefault(id, line) != line:
            raise _twice(table, id, lines[id], line)
        with problems.skipping(table.origin, id):
            if len(chosen) > 1:
                shown = " and ".join(map(repr, chosen))
                raise AnnotationError(f"{table.origin}, line {line}", f"is {shown}; keep one class")
            unlabeled += not chosen
            labels.update((id, name) for name in chosen)
    if not rows:
        table.needed(table.header[id_at].lower(), "label")
    problems.note(
        f"{table.origin}: each of {len(classes)} columns is a class "
        f"({first_names(list(classes.values()), 3)})"
    )
    if unlabeled:
        have = part(unlabeled, rows, "rows", "have")
        problems.note(f"{table.origin}: {have} no class: not labeled yet")
    return labels


def _twice(table: Table, id: str, first: int, line: int) -> LabelError:
    return LabelError(
        f"{table.origin}: the id {shortened(id)!r} is in line {first} and in line {line}; "
        "keep one of them"
    )
