"""Labels of whole images: CSV with the columns ``id`` and ``label``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, stripped
from lloss.text.csv_table import Table, csv_text, shortened

_WATCHED = (
    "split", "set", "subset", "partition", "fold", "usage",
    "image", "img", "file", "filename", "file_name", "image_path", "image_name",
)  # fmt: skip
"""Columns that look as if they said which rows to train on, or named the images."""


def labels_text(labels: Mapping[str, str]) -> str:
    """Write labels by id as CSV."""
    return csv_text(("id", "label"), labels.items())


def read_labels(
    path: Path, needs_label: bool = True, problems: Problems | None = None
) -> dict[str, str]:
    """Read a CSV (UTF-8, with a header) with the columns ``id`` and ``label``; others are ignored.

    Without a column ``id``, that is ``file_name``, as in Hugging Face's ``metadata.csv``.

    Without ``needs_label`` ids alone will do. A note names ignored columns that may matter.
    """
    columns = "the columns 'id' and 'label'" if needs_label else "a column 'id'"
    try:
        with path.open("rb") as file:
            return parse_labels(file, str(path), needs_label, problems)
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
    """Parse a CSV as :func:`read_labels`.

    ``needs_label`` None asks for labels where there is a column of them, in which ``blank`` allows
    empty ones. An empty field and a repeated id are refused.
    """
    table = Table(file, origin, LabelError)
    label_at = table.column("label")
    needs_label = label_at is not None if needs_label is None else needs_label
    named = table.column("id") is None and table.column("file_name") is not None
    id_name = "file_name" if named else "id"
    id_at, *_ = table.needed(id_name, "label") if needs_label else table.needed(id_name)
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
                f"{origin}: the id {shortened(id)!r} is in line {lines[id]} and in line "
                f"{line}; keep one of them"
            )
        labels[id], lines[id] = label, line
    ignored = [n for n in table.header if n.lower() in _WATCHED and n.lower() != id_name]
    if problems is not None and ignored:
        problems.note(
            f"{origin}: only the columns {id_name} and label are read, not {', '.join(ignored)}: "
            f"all rows are labels of the images that {id_name} names"
        )
    return labels
