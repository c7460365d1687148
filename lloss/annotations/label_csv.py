"""Labels of whole images: CSV with the columns ``id`` and ``label``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, stripped
from lloss.text.csv_table import Table, csv_text, shortened

_SPLITS = ("split", "set", "subset", "partition", "fold", "usage")
"""Columns that tell which rows are to train on and which to measure on."""


_FILES = ("image", "img", "file", "filename", "file_name", "image_path", "image_name")
"""Columns that name images, of exports that number their tasks in the column ``id``."""


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels by id as CSV."""
    return csv_text(("id", "label"), labels.items())


def read_labels(
    path: Path, needs_label: bool = True, problems: Problems | None = None
) -> dict[str, str]:
    """Read a CSV with the columns ``id`` and ``label`` (others are ignored).

    Args:
        path: UTF-8, with a header.
        needs_label: whether each row has a label; without, ids alone will do.
        problems: gets a note of a column of splits, which is not looked at.

    Raises:
        LabelError: no such file or column, an empty field, or an id that stands there twice.
    """
    try:
        with path.open("rb") as file:
            return parse_labels(file, str(path), needs_label, problems)
    except FileNotFoundError as error:
        columns = "the columns 'id' and 'label'" if needs_label else "a column 'id'"
        raise LabelError(f"{path}: no such file; it needs {columns}") from error
    except IsADirectoryError as error:
        columns = "with the columns 'id' and 'label'" if needs_label else "with a column 'id'"
        raise LabelError(f"{path}: is a folder; give a CSV {columns}") from error
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
    """The labels of a CSV as :func:`read_labels` takes it.

    Args:
        file: opened for bytes.
        origin: what to call it.
        needs_label: whether each row has a label; None for where there is a column of them.
        problems: see :func:`read_labels`.
        blank: whether rows of a column of labels may leave them out all the same.

    Raises:
        LabelError: see :func:`read_labels`.
    """
    table = Table(file, origin, LabelError)
    if needs_label is None:
        needs_label = table.column("label") is not None
    id_at, *_ = table.needed("id", "label") if needs_label else table.needed("id")
    label_at = table.column("label")
    split_at = next((at for at, name in enumerate(table.header) if name.lower() in _SPLITS), None)
    splits = Counter[str]()
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in table:
        id, label = row[id_at], "" if label_at is None else clean_name(row[label_at])
        if not stripped(id) or (needs_label and not label and not blank):
            raise LabelError(
                f"{origin}, line {line}: an empty id or label; write both or remove the row"
            )
        if id in labels and needs_label:
            raise LabelError(
                f"{origin}: the id {shortened(id)!r} stands in line {lines[id]} and in line "
                f"{line}; keep one of them"
            )
        labels[id], lines[id] = label, line
        if split_at is not None:
            splits[row[split_at]] += 1
    if problems is not None and split_at is not None and len(splits) > 1:
        problems.note(_split_note(origin, table.header[split_at], splits))
    named_at = next((at for at, name in enumerate(table.header) if name.lower() in _FILES), None)
    if problems is not None and named_at is not None and all(map(str.isdecimal, labels)):
        problems.note(
            f"{origin}: ids are those of the column {table.header[id_at]!r}, which are numbers; "
            f"the column {table.header[named_at]!r} is not looked at: if it names the images, and "
            "the numbers are those of tasks, call it 'id'"
        )
    return labels


def _split_note(origin: str, column: str, splits: Counter[str]) -> str:
    shown = ", ".join(f"{name!r}: {count}" for name, count in splits.most_common(4))
    return (
        f"{origin}: the column {column!r} ({shown}) is not looked at, all rows are labels; give a "
        "file for each part"
    )
