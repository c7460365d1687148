"""A selection as plain ids, CSV or Parquet."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq

from lloss.errors import SettingsError
from lloss.files import atomic_write, write_text
from lloss.pools.uri import is_fiftyone
from lloss.selection import Selection
from lloss.text.csv_table import csv_text

FORMATS = ("ids", "csv", "parquet")
FIFTYONE = "fiftyone"
"""A dataset of FiftyOne, in place of a file."""

_SUFFIXES = {".txt": "ids", ".csv": "csv", ".parquet": "parquet"}


def format_of(out: Path | None) -> str:
    """The format of a file by its suffix; plain ids without a file."""
    if out is None:
        return "ids"
    if is_fiftyone(out):
        return FIFTYONE
    if out.suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise SettingsError(f"{out}: choose one of {known}, or say which with --format")
    return _SUFFIXES[out.suffix]


def formatted(selection: Selection, kind: str, place: str = "rank") -> str:
    """The selection as text: ``ids`` (an id a line) or ``csv`` (id, score, rank, reason).

    ``place`` names the third column, where the order of the picks is not a ranking.
    """
    if kind == "csv":
        scores = ("" if math.isnan(score) else score for score in selection.scores.tolist())
        reasons = selection.reasons or [""] * len(selection)
        rows = zip(selection.ids, scores, range(1, len(selection) + 1), reasons)
        return csv_text(_names(place), rows)
    broken = next((id for id in selection.ids if len(id.splitlines()) != 1), None)
    if broken is not None:
        raise SettingsError(
            f"the id {broken!r} has a line break in it, so a list of ids would be wrong: "
            "choose the format parquet"
        )
    return "".join(f"{id}\n" for id in selection.ids)


def write_selection(selection: Selection, path: Path, kind: str = "", place: str = "rank") -> None:
    """Write it whole or not at all; ``kind`` as in :func:`formatted` or ``parquet``."""
    kind = kind or format_of(path)
    if kind == "parquet":
        with atomic_write(path) as aside:
            pq.write_table(selection.table().rename_columns(_names(place)), aside)
    else:
        write_text(path, formatted(selection, kind, place))


def _names(place: str) -> list[str]:
    return ["id", "score", place, "reason"]
