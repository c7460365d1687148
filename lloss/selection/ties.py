"""Scores that do not differ: where they tie, the order of ids decides, and that is no ranking."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lloss.scores.score_source import ScannedSource
from lloss.selection.select import Selection


def tie_note(source: ScannedSource, chosen: Selection) -> str:
    """What to say where most selected images have one score that others have too.

    That is all of them, or the last of ``top``, of which the order of ids left others out; "" where
    the scores decided.
    """
    scores, settings = chosen.scores, chosen.settings
    if settings.strategy == "random" or len(scores) < 2:
        return ""
    score = scores.max() if settings.direction == "lowest" else scores.min()
    picked, by = int(np.count_nonzero(scores == score)), settings.by
    whole = picked == len(scores)
    if not whole and (settings.strategy != "top" or 2 * picked <= len(scores)):
        return ""
    same = sum(int(np.count_nonzero(_values(batch, by) == score)) for batch in source.scan([by]))
    if not whole and same <= picked:
        return ""
    some = f"all {picked:,}" if whole else f"{picked:,} of {len(scores):,}"
    return (
        f"warning: {some} selected images have the same {by}, as {same:,} of {chosen.pool:,} in "
        f"the scores have: {'' if whole else 'among these '}the order of ids decided, this is no "
        "ranking"
    )


def constant_note(batches: Iterable[pa.RecordBatch], column: str) -> str:
    """What to say where all images have the same score; "" where two differ.

    Reads no further than to the first that differs.
    """
    count, first = 0, None
    for batch in batches:
        values = _values(batch, column)
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        first = values[0] if first is None else first
        if (values != first).any():
            return ""
        count += len(values)
    if count < 2:
        return ""
    return f"warning: all {count:,} images have the same {column}: that ranks nothing"


def _values(batch: pa.RecordBatch, column: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = pc.cast(
        batch.column(column), pa.float64()
    ).to_numpy(zero_copy_only=False)
    return values
