"""Vectors of images, read from scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.errors import SelectionError
from lloss.manifest import EMBEDDING, PRETRAINED_EMBEDDING
from lloss.scores.score_source import ScoreSource


def usual_embedding(source: ScoreSource) -> str:
    """Name the column that likeness is measured in: features that few labels cannot have changed.

    That is ``pretrained_embedding`` where the scores have it, or else ``embedding``.
    """
    return PRETRAINED_EMBEDDING if PRETRAINED_EMBEDDING in source.columns() else EMBEDDING


def read_vectors(
    source: ScoreSource, ids: Sequence[str], columns: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Read columns of vectors of some ids, each float32 [N, D] in the order of the ids.

    Rows that the source lacks are NaN.

    Raises:
        SelectionError: a column holds something else, or vectors of different lengths; an id is
            named twice.
        ScoresError: the scores cannot be read or lack a column.
    """
    rows = {id: row for row, id in enumerate(ids)}
    if len(rows) < len(ids):
        raise duplicate_id(next(id for row, id in enumerate(ids) if rows[id] != row))
    found = {name: np.empty((len(ids), 0), np.float32) for name in columns}
    for batch in source.scan(list(dict.fromkeys(["id", *columns])), ids):
        if not len(batch):
            continue
        places = [rows[id] for id in batch["id"].to_pylist()]
        for name in columns:
            vectors, before = _vectors(batch[name], name), found[name]
            if not before.shape[1]:
                found[name] = np.full((len(ids), vectors.shape[1]), np.nan, np.float32)
            elif vectors.shape[1] != before.shape[1]:
                raise _different_lengths(name, *sorted([before.shape[1], vectors.shape[1]]))
            with np.errstate(over="ignore"):  # strategies leave out what becomes infinite
                found[name][places] = vectors
    return found


def duplicate_id(id: str) -> SelectionError:
    """Make the error of scores that have several rows of an image."""
    return SelectionError(
        f"the scores have more than one row of {id!r}: each image needs an id of its own"
    )


def _vectors(column: pa.Array, name: str) -> NDArray[Any]:
    """Convert a column of lists of numbers to [N, D]."""
    if column.null_count:
        raise SelectionError(f"an image has no {name}; choose --strategy top")
    kind = getattr(column.type, "value_type", pa.null())
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise SelectionError(
            f"the column {name!r} holds {column.type}, not vectors; choose --strategy top"
        )
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    if lengths["min"] != lengths["max"]:
        raise _different_lengths(name, lengths["min"], lengths["max"])
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def _different_lengths(name: str, one: int, other: int) -> SelectionError:
    return SelectionError(
        f"vectors of {name!r} have different lengths, {one} and {other}; choose --strategy top"
    )
