"""A warning about equal scores: the order of ids decides between them, which ranks nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.scores.score_source import ScoreSource
from lloss.selection.selection import Selection
from lloss.selection.strategies import get_strategy


def tie_note(source: ScoreSource, selection: Selection) -> str:
    """Warn where most selected images share one score with images that were left out; else "".

    Of a ranking that is the last score; of other strategies the score of all.
    """
    scores, settings = selection.scores, selection.settings
    strategy = get_strategy(settings.strategy)
    if not strategy.uses_scores or len(scores) < 2:
        return ""
    score = scores.max() if settings.direction == "lowest" else scores.min()
    picked, by = int(np.count_nonzero(scores == score)), settings.by
    all_tie = picked == len(scores)
    if not all_tie and (settings.strategy != "top" or 2 * picked <= len(scores)):
        return ""
    same = sum(int(np.count_nonzero(_values(batch, by) == score)) for batch in source.scan([by]))
    if not all_tie and same <= picked:
        return ""
    some = f"all {picked:,}" if all_tie else f"{picked:,} of {len(scores):,}"
    decided = f"{'' if all_tie else 'among these '}the order of ids decided, this is not a ranking"
    if strategy.weighted:
        decided = "it weighs them all the same"
    return (
        f"warning: {some} selected images have the same {by}, as {same:,} of {selection.pool:,} in "
        f"the scores have: {decided}"
    )


def _values(batch: pa.RecordBatch, column: str) -> NDArray[Any]:
    values: NDArray[Any] = batch[column].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
