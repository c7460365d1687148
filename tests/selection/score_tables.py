"""Tables of scores, and a selection from one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lloss.scores.score_source import TableScores
from lloss.selection import Selection, SelectionSettings, select


def score_table(scores: Any, ids: Sequence[str] | None = None, vectors: Any = None) -> pa.Table:
    """A column ``loss``, and embeddings where they are given; ids are 0000.jpg, 0001.jpg …"""
    ids = [f"{row:04d}.jpg" for row in range(len(scores))] if ids is None else ids
    columns: dict[str, Any] = {"id": pa.array(ids, pa.string()), "loss": scores}
    if vectors is not None:
        flat = np.asarray(vectors, np.float32)
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat.ravel(), flat.shape[1])
    return pa.table(columns)


def tied_table(count: int, seed: int = 0) -> pa.Table:
    """Nine different scores, and ids in no order."""
    random = np.random.default_rng(seed)
    ids = [f"img {n}" for n in random.permutation(count)]
    return score_table(random.integers(0, 9, count) / 8, ids)


def select_from(table: pa.Table, exclude: Collection[str] = (), **settings: Any) -> Selection:
    """Select from a table."""
    return select(TableScores(table), SelectionSettings(**settings), exclude)


def best_ids(table: pa.Table) -> list[str]:
    """All ids by a plain sort, highest score first."""
    rows = zip(table["loss"].to_pylist(), table["id"].to_pylist(), strict=True)
    return [id for _, id in sorted((-score, id) for score, id in rows)]
