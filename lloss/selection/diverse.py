"""The strategy ``diverse``: k-center greedy on the embeddings of the best scores."""

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
from lloss.selection.kcenter import k_center, spreadable


def usual_embedding(source: ScoreSource) -> str:
    """Name the column to spread by: features that few labels cannot have changed, where there."""
    return PRETRAINED_EMBEDDING if PRETRAINED_EMBEDDING in source.columns() else EMBEDDING


def spread(
    source: ScoreSource, candidates: pa.Table, k: int, at_most: bool, column: str = EMBEDDING
) -> tuple[pa.Table, int]:
    """Choose K candidates, the first being the best; or all where there are fewer.

    Args:
        source: of the embeddings.
        candidates: ``id`` and further columns, best first.
        k: how many to choose.
        at_most: whether fewer than K will do where embeddings cannot be used.
        column: of the embeddings.

    Returns:
        The chosen rows in the order picked, and how many candidates have an unusable embedding.

    Raises:
        SelectionError: too few can be used.
    """
    if len(candidates) <= k:
        return candidates, 0
    embeddings = read_embeddings(source, candidates["id"].to_pylist(), column)
    usable = np.flatnonzero(spreadable(embeddings))
    unusable = len(candidates) - len(usable)
    if len(usable) < k and not (at_most and len(usable)):
        raise SelectionError(
            f"{unusable} of the {len(candidates)} candidates have an infinite or extreme "
            f"embedding, and k = {k} cannot be spread over the others; choose --strategy top"
        )
    if len(usable) > k:
        usable = usable[k_center(embeddings[usable], k)]
    return candidates.take(pa.array(usable)), unusable


def read_embeddings(
    source: ScoreSource, ids: Sequence[str], column: str = EMBEDDING
) -> NDArray[np.float32]:
    """Read the embeddings of some ids, float32 [N, D] in their order."""
    rows = {id: row for row, id in enumerate(ids)}
    embeddings = np.empty((len(ids), 0), np.float32)
    for batch in source.scan(["id", column], ids):
        if not len(batch):
            continue
        vectors = _vectors(batch[column], column)
        if not embeddings.shape[1]:
            embeddings = np.full((len(ids), vectors.shape[1]), np.nan, np.float32)
        elif vectors.shape[1] != embeddings.shape[1]:
            raise _different_lengths(*sorted([embeddings.shape[1], vectors.shape[1]]))
        with np.errstate(over="ignore"):  # spreadable() leaves out what becomes infinite
            embeddings[[rows[id] for id in batch["id"].to_pylist()]] = vectors
    return embeddings


def _vectors(column: pa.Array, name: str) -> NDArray[Any]:
    """Convert a column of lists of numbers to [N, D]."""
    if column.null_count:
        raise SelectionError("an image has no embedding; choose --strategy top")
    kind = getattr(column.type, "value_type", pa.null())
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise SelectionError(
            f"the column {name!r} holds {column.type}, not vectors; choose --strategy top"
        )
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    if lengths["min"] != lengths["max"]:
        raise _different_lengths(lengths["min"], lengths["max"])
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def _different_lengths(one: int, other: int) -> SelectionError:
    return SelectionError(
        f"embeddings have different lengths, {one} and {other}; choose --strategy top"
    )
