"""Quotas: how many picks each group of images gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lloss.selection.hashing import draw_hash


def equal_shares(sizes: Mapping[str, int], k: int, seed: int = 0) -> dict[str, int]:
    """Divide K picks equally among groups; what a small group leaves goes to the others equally.

    Args:
        sizes: images of each group.
        k: at most all of them.
        seed: draws, by the groups' names, which of them get one more where K does not divide.

    Returns:
        Picks of each group, K in all.
    """
    shares, left = dict.fromkeys(sizes, 0), min(k, sum(sizes.values()))
    open_groups = sorted(sizes, key=lambda group: (draw_hash(group, seed), group))
    while left:
        open_groups = [group for group in open_groups if shares[group] < sizes[group]]
        each = max(left // len(open_groups), 1)
        for group in open_groups[:left]:
            given = min(each, sizes[group] - shares[group])
            shares[group] += given
            left -= given
    return shares


def interleaved(groups: Sequence[Sequence[int]]) -> list[int]:
    """Merge the picks of groups: the first of each group, then the second of each, and so on."""
    longest = max(map(len, groups), default=0)
    return [group[place] for place in range(longest) for group in groups if place < len(group)]
