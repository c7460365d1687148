"""A selection as plain ids, CSV, JSON lines or Parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq

from lloss.errors import SettingsError
from lloss.files import atomic_write, write_text
from lloss.selection import Selection
from lloss.text.csv_table import csv_text

FORMATS = ("ids", "csv", "jsonl", "parquet")
_SUFFIXES = {".txt": "ids", ".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}


def format_of(out: Path | None) -> str:
    """The format of a file by its suffix; plain ids without a file."""
    if out is None:
        return "ids"
    if out.suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise SettingsError(f"{out}: choose one of {known}, or say which with --format")
    return _SUFFIXES[out.suffix]


def formatted(selection: Selection, kind: str, place: str = "rank") -> str:
    """The selection as text: ``ids`` (an id a line), ``csv`` or ``jsonl`` (id, score, rank).

    ``place`` names the last column, where the order of the picks is not a ranking.
    """
    rows = zip(selection.ids, selection.scores.tolist(), range(1, len(selection) + 1))
    text = io.StringIO()
    if kind == "ids":
        broken = next((id for id in selection.ids if len(id.splitlines()) != 1), None)
        if broken is not None:
            raise SettingsError(
                f"the id {broken!r} has a line break in it, so a list of ids would be wrong: "
                "choose the format jsonl or parquet"
            )
        text.writelines(f"{id}\n" for id in selection.ids)
    elif kind == "csv":
        text.write(csv_text(("id", "score", place), rows))
    else:
        for id, score, rank in rows:
            row = {"id": id, "score": score, place: rank}
            text.write(json.dumps(row, ensure_ascii=False) + "\n")
    return text.getvalue()


def write_selection(selection: Selection, path: Path, kind: str = "", place: str = "rank") -> None:
    """Write it whole or not at all; ``kind`` as in :func:`formatted` or ``parquet``."""
    kind = kind or format_of(path)
    if kind == "parquet":
        with atomic_write(path) as aside:
            pq.write_table(selection.table().rename_columns(["id", "score", place]), aside)
    else:
        write_text(path, formatted(selection, kind, place))
