from __future__ import annotations

import numpy as np
import pytest

from lloss.selection.quotas import equal_shares, interleaved


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_equal_but_for_groups_that_are_too_small(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 12))
    sizes = {f"g{n}": int(random.integers(0, 30)) for n in range(count)}
    for k in (1, 5, 17, sum(sizes.values())):
        shares = equal_shares(sizes, k, seed)
        assert sum(shares.values()) == min(k, sum(sizes.values()))
        assert all(0 <= shares[group] <= sizes[group] for group in sizes)
        filled = [shares[group] for group in sizes if shares[group] < sizes[group]]
        most = max(shares.values())
        assert all(share >= most - 1 for share in filled)  # only small groups have fewer
        assert equal_shares(dict(reversed(sizes.items())), k, seed) == shares


def test_the_seed_draws_which_groups_get_one_more() -> None:
    sizes = {"night": 9, "day": 9, "dusk": 9}
    got = [equal_shares(sizes, 4, seed) for seed in range(30)]
    assert {group for shares in got for group in sizes if shares[group] == 2} == set(sizes)
    assert equal_shares(sizes, 2, 0) == equal_shares(sizes, 2, 0)


def test_what_a_small_group_leaves_goes_to_the_others() -> None:
    assert equal_shares({"a": 1, "b": 100, "c": 100}, 9) == {"a": 1, "b": 4, "c": 4}
    assert equal_shares({"a": 2, "b": 3}, 10) == {"a": 2, "b": 3}
    assert equal_shares({}, 3) == {}


def test_picks_of_groups_are_taken_in_turn() -> None:
    assert interleaved([[1, 2, 3], [7], [], [8, 9]]) == [1, 7, 8, 2, 9, 3]
    assert interleaved([]) == []
