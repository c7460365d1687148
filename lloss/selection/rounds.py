"""Ask a strategy for picks of each group, and for more where near-duplicates take their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lloss.errors import SelectionError
from lloss.selection.candidate_reader import Vectors
from lloss.selection.near_duplicates import distinct
from lloss.selection.quotas import equal_shares
from lloss.selection.strategies import Candidates, Picks, Strategy
from lloss.selection.strategies.strategy import EMBEDDING

_GROWTH = 8
"""What is asked for grows at most so many times from one round to the next."""


@dataclass(frozen=True)
class Proposals:
    """What a strategy proposed in one group, in its order.

    Attributes:
        candidates: what it chose from.
        picks: all that it proposed.
        places: those of them that are no near-duplicates, int64.
    """

    candidates: Candidates
    picks: Picks
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def passed_over(self, count: int, to_the_end: bool) -> int:
        """Count the near-duplicates before the last of so many picks, or to the end."""
        if to_the_end:
            return len(self.picks.rows) - count
        return int(self.places[count - 1]) + 1 - count if count else 0


def propose(
    candidates: Mapping[str, Candidates],
    asks: Mapping[str, int],
    labeled: Vectors,
    strategy: Strategy,
    min_distance: float,
) -> dict[str, Proposals]:
    """Have the strategy choose in each group, one after the other.

    What was picked in earlier groups counts as labeled for the next one.
    """
    found: dict[str, Proposals] = {}
    for group, own in candidates.items():
        if strategy.labeled and labeled:
            own = replace(own, labeled=labeled)
        picks = _choose(own, min(asks[group], len(own)), strategy)
        places = np.arange(len(picks.rows))
        if min_distance:
            embeddings = own.columns[EMBEDDING][picks.rows]
            taken = labeled.get(EMBEDDING, embeddings[:0])
            places = np.flatnonzero(distinct(embeddings, taken, min_distance))
        found[group] = Proposals(own, picks, places)
        if len(candidates) > 1:
            labeled = _joined(labeled, own, picks.rows[places])
    return found


def next_asks(
    found: Mapping[str, Proposals],
    asks: Mapping[str, int],
    sizes: Mapping[str, int],
    k: int,
    seed: int,
) -> tuple[dict[str, int], dict[str, int]]:
    """Divide K picks among the groups by what they have.

    Returns:
        Each group's share; and what to ask each group for next, which is ``asks`` where all have
        their shares already. A group that was asked for all its images has what it found; any
        other may have as many as it has images.
    """
    have = {group: len(found[group]) if group in found else 0 for group in sizes}
    asked_all = {group for group, size in sizes.items() if asks.get(group, 0) >= size}
    most = {group: have[group] if group in asked_all else size for group, size in sizes.items()}
    shares = equal_shares(most, k, seed)
    more = dict(asks)
    for group, share in shares.items():
        if have[group] < share:
            asked = max(asks.get(group, 0), share)
            likely = asked * share * 5 // (4 * max(have[group], 1)) + 1
            more[group] = min(likely, _GROWTH * asked, sizes[group])
    return shares, more


def _choose(candidates: Candidates, k: int, strategy: Strategy) -> Picks:
    """Choose K candidates; where vectors were not read, these are all that are left."""
    if any(name not in candidates.columns for name in strategy.vectors):
        return Picks(np.arange(k), ["all that are left"] * k)
    picks = strategy.choose(candidates, k) if k else Picks(np.empty(0, np.int64), [])
    rows = np.unique(picks.rows)
    if not len(picks.rows) == len(rows) == len(picks.reasons) == k or (
        k and not 0 <= rows[0] <= rows[-1] < len(candidates)
    ):
        raise SelectionError(
            f"strategy {strategy.name!r}: chose {len(rows)} different images with "
            f"{len(picks.reasons)} reasons, not {k} of the {len(candidates)} candidates"
        )
    return picks


def _joined(labeled: Vectors, candidates: Candidates, rows: NDArray[np.int64]) -> Vectors:
    """The vectors of labeled images and of picks."""
    names: Sequence[str] = list(labeled) or [
        name for name, values in candidates.columns.items() if values.ndim > 1
    ]
    own = {name: candidates.columns[name][rows] for name in names}
    return {
        name: np.concatenate([labeled[name], own[name]]) if labeled else own[name] for name in names
    }
