"""Select K images from a stream of scores.

A first pass holds the rows that the strategy may need; then their vectors are read. Rows have a
total order, by key and then by id, so that the same scores, settings and seed give the same
selection on any machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from lloss.errors import SelectionError, SettingsError
from lloss.scores.score_source import ScoreSource
from lloss.selection.candidate_reader import CandidateReader
from lloss.selection.eligible_rows import EligibleRows
from lloss.selection.first_pass import FirstPass
from lloss.selection.quotas import equal_shares, interleaved
from lloss.selection.rounds import Proposals, next_asks, propose
from lloss.selection.selection import PREDICTION, Selection, SelectionSettings
from lloss.selection.strategies import get_strategy
from lloss.selection.vectors import duplicate_id
from lloss.text.counts import counted, part


def select(
    source: ScoreSource, settings: SelectionSettings, exclude: Collection[str] = ()
) -> Selection:
    """Choose K images.

    With groups the strategy chooses in each, and ranks take turns among them. Where near-duplicates
    or unusable vectors leave too few, it is asked for more, until it has been asked for all.

    Args:
        source: scores with the column ``id``, that of ``settings.by``, and those that the strategy
            reads.
        settings: how.
        exclude: ids never to select, such as the labeled ones; the source may lack some of them.
            Strategies that cover take those that it has as labeled.

    Raises:
        SelectionError: fewer than K are left and ``at_most`` is off.
        ScoresError: the source cannot be read or lacks a column.
        SettingsError: the column holds no numbers, nothing says which end of it is the best, or
            classes are to be weighed and none is predicted.
    """
    settings = settings.resolved(source.columns())
    strategy, k, seed = get_strategy(settings.strategy), settings.k, settings.seed
    if not strategy.uses_scores and settings.by and settings.by not in source.columns():
        settings = replace(settings, by="")  # a column that decides nothing may be missing
    _check_classes(source, settings)
    rows, reader = EligibleRows(source, settings, exclude), CandidateReader(source, settings)
    first = FirstPass(rows, settings)
    asks = {"": k}
    if settings.balance:
        shares = equal_shares(first.count(), k, seed)
        asks = {group: share for group, share in shares.items() if share}
    while True:
        kept = first.keep(asks)
        _check_enough(settings, rows, sum(first.sizes.values()))
        candidates = reader.candidates(kept, first.sizes, rows.excluded)
        found = propose(candidates, asks, reader.labeled, strategy, settings.min_distance)
        shares, more = next_asks(found, asks, first.sizes, k, seed)
        if more == asks:
            break
        asks = more
    _check_usable(settings, reader.unusable, found, shares)
    return _selection(settings, rows, reader, first.sizes, found, shares)


def _selection(
    settings: SelectionSettings,
    rows: EligibleRows,
    reader: CandidateReader,
    sizes: Mapping[str, int],
    found: Mapping[str, Proposals],
    shares: Mapping[str, int],
) -> Selection:
    """Put the groups' shares together, in turns."""
    picks: list[tuple[str, float, str]] = []
    groups, short = [], sum(shares.values()) < settings.k
    for group, proposals in found.items():
        places = proposals.places[: shares[group]]
        chosen, candidates = proposals.picks.rows[places], proposals.candidates
        groups.append(range(len(picks), len(picks) + len(chosen)))
        picks += zip(
            [candidates.ids[row] for row in chosen.tolist()],
            candidates.columns["score"][chosen].tolist(),
            [_reason(settings, proposals.picks.reasons[place]) for place in places.tolist()],
        )
    picks = [picks[place] for place in interleaved(groups)]
    if len({id for id, _, _ in picks}) < len(picks):
        twice = Counter(id for id, _, _ in picks).most_common(1)[0][0]
        raise duplicate_id(twice)
    return Selection(
        [id for id, _, _ in picks],
        np.array([score for _, score, _ in picks], np.float64),
        rows.pool,
        len(rows.excluded),
        rows.unscored,
        sum(sizes.values()),
        settings,
        reader.unusable,
        reader.embedding,
        [reason for _, _, reason in picks],
        reader.labeled_count,
        candidates=sum(len(proposals.candidates) for proposals in found.values()),
        distinct=reader.distinct,
        duplicates=sum(each.passed_over(shares[group], short) for group, each in found.items()),
        groups={group: (shares[group], sizes[group]) for group in sizes}
        if settings.balance
        else {},
    )


def _reason(settings: SelectionSettings, reason: str) -> str:
    """Say that a strategy compared images within each group: shares are of the group."""
    within = settings.balance and get_strategy(settings.strategy).vectors
    return f"in its group: {reason}" if within else reason


def _check_classes(source: ScoreSource, settings: SelectionSettings) -> None:
    has = source.columns()
    if settings.class_weight and has and PREDICTION not in has:
        raise SettingsError(
            f"class_weight {settings.class_weight!r}: the scores have no column {PREDICTION!r}; "
            "only classifiers predict a class"
        )


def _check_enough(settings: SelectionSettings, rows: EligibleRows, eligible: int) -> None:
    if eligible >= settings.k or (settings.at_most and eligible):
        return
    counts = {
        "excluded": len(rows.excluded),
        "without a finite score": rows.unscored,
    }
    why = [f"{count} {what}" for what, count in counts.items() if count]
    if settings.subset:
        why.append(f"the sub-pool is {settings.subset}")
    reason = f" ({rows.pool} scored; {', '.join(why)})" if why else ""
    remedy = "lower k, or pass --at-most to take what is left" if eligible else "score more images"
    left = counted(eligible, "image is", "images are")
    raise SelectionError(f"k = {settings.k}, but {left} left{reason}; {remedy}")


def _check_usable(
    settings: SelectionSettings,
    unusable: int,
    found: Mapping[str, Proposals],
    shares: Mapping[str, int],
) -> None:
    """Refuse fewer than K picks after all candidates were asked for."""
    total = sum(shares.values())
    if total >= settings.k or (settings.at_most and total):
        return
    candidates = sum(len(each.candidates) for each in found.values()) + unusable
    near = candidates - unusable - total
    if settings.min_distance and near:
        broken = f" ({unusable} with a NaN, infinite or extreme embedding)" if unusable else ""
        raise SelectionError(
            f"k = {settings.k}, but {counted(total, 'image is', 'images are')} left at least "
            f"{settings.min_distance:g} from labeled ones and each other{broken}; lower k or the "
            "distance, or pass --at-most to take what is left"
        )
    apart = ", without a distance" if settings.min_distance else ""
    raise SelectionError(
        f"{part(unusable, candidates, 'candidates', 'have')} a NaN, infinite or extreme embedding, "
        f"and k = {settings.k} cannot be spread over the others; choose --strategy top{apart}"
    )
