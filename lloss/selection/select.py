"""Select K images from a stream of scores.

A first pass holds the rows that the strategy may need; then their vectors are read. Rows have a
total order, by key and then by id, so that the same scores, settings and seed give the same
selection on any machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.errors import SelectionError
from lloss.scores.score_source import ScoreSource
from lloss.selection.candidate_reader import CandidateReader
from lloss.selection.eligible_rows import EligibleRows, first_rows
from lloss.selection.hashing import draw_hashes
from lloss.selection.selection import Selection, SelectionSettings
from lloss.selection.strategies import Candidates, Picks, Strategy, get_strategy
from lloss.selection.weights import SAMPLE, Weights


def select(
    source: ScoreSource, settings: SelectionSettings, exclude: Collection[str] = ()
) -> Selection:
    """Choose K images.

    Args:
        source: scores with the column ``id``, that of ``settings.by``, and those that the strategy
            reads.
        settings: how.
        exclude: ids never to select, such as the labeled ones; the source may lack some of them.
            Strategies that cover take those that it has as labeled.

    Raises:
        SelectionError: fewer than K are left and ``at_most`` is off.
        ScoresError: the source cannot be read or lacks a column.
        SettingsError: the column holds no numbers, or nothing says which end of it is the best.
    """
    strategy = get_strategy(settings.strategy)
    rows = EligibleRows(source, settings, exclude)
    kept = _first_pass(rows, settings, strategy)
    eligible = min(rows.count, int(settings.subset) or rows.count)
    _check_enough(settings, rows, eligible)
    reader = CandidateReader(source, settings, rows.excluded)
    candidates = reader.candidates(kept, eligible > len(kept))
    picks = _choose(candidates, min(settings.k, len(candidates)), strategy)
    return Selection(
        [candidates.ids[row] for row in picks.rows.tolist()],
        candidates.columns["score"][picks.rows],
        rows.pool,
        len(rows.excluded),
        rows.unscored,
        eligible,
        settings,
        reader.unusable,
        reader.embedding,
        picks.reasons,
        reader.labeled,
    )


def _first_pass(rows: EligibleRows, settings: SelectionSettings, strategy: Strategy) -> pa.Table:
    """Return the rows that the strategy chooses from, smallest key first."""
    batches: Iterable[pa.RecordBatch] = rows
    lowest = settings.direction == "lowest"

    def drawn(count: int) -> pa.Table:
        """Some rows, at random."""
        found = first_rows(batches, lambda ids, _: draw_hashes(ids, settings.seed), lowest, count)
        return found.drop_columns(["key"]) if len(found) else found

    if settings.subset:
        batches = drawn(int(settings.subset)).to_batches()
    weigh = _weighing(drawn(SAMPLE), lowest) if strategy.weighted else np.positive

    def keys(ids: pa.Array, scores: NDArray[np.float64]) -> NDArray[np.generic]:
        return strategy.keys(ids, weigh(scores), settings.seed)

    kept = first_rows(batches, keys, lowest, strategy.limit(settings.k))
    if strategy.weighted and len(kept):
        scores = kept["score"].to_numpy()
        kept = kept.append_column("weight", pa.array(weigh(-scores if lowest else scores)))
    return kept


def _weighing(sample: pa.Table, lowest: bool) -> Weights:
    scores = sample["score"].to_numpy() if len(sample) else np.zeros(1)
    return Weights(-scores if lowest else scores)


def _choose(candidates: Candidates, k: int, strategy: Strategy) -> Picks:
    """Choose K candidates; where no more are left, all of them in their order."""
    if strategy.vectors and len(candidates) == k:
        return Picks(np.arange(k), ["all that are left"] * k)
    return strategy.choose(candidates, k)


def _check_enough(settings: SelectionSettings, rows: EligibleRows, eligible: int) -> None:
    if eligible >= settings.k or (settings.at_most and eligible):
        return
    counts = {
        "are excluded": len(rows.excluded),
        "have no finite score": rows.unscored,
    }
    why = [f"{count} {what}" for what, count in counts.items() if count]
    if settings.subset:
        why.append(f"the sub-pool is {settings.subset}")
    reason = f" ({rows.pool} scored; {', '.join(why)})" if why else ""
    remedy = "lower k, or pass --at-most to take what is left" if eligible else "score more images"
    raise SelectionError(f"k = {settings.k}, but {eligible} images are left{reason}; {remedy}")
