from __future__ import annotations

import numpy as np

from lloss.training.head_training import folds_of, held_out_rows


def test_without_near_duplicates_folds_are_a_permutation() -> None:
    expected = np.random.default_rng(3).permutation(23) % 5
    assert folds_of(23, 5, 3).tolist() == expected.tolist()
    assert folds_of(23, 5, 3, np.arange(23)).tolist() == expected.tolist()
    first = np.random.default_rng(3).permutation(23)[:7]
    assert held_out_rows(23, 7, 3).tolist() == first.tolist()
    assert held_out_rows(23, 7, 3, np.arange(23)).tolist() == sorted(first)


def test_a_group_is_in_one_fold_and_each_fold_has_as_many_groups() -> None:
    groups = np.array([0, 0, 2, 3, 0, 2, 6, 7, 8, 9, 10, 10])
    for seed in range(20):
        folds = folds_of(12, 4, seed, groups)
        assert all(len(set(folds[groups == group])) == 1 for group in groups)
        assert np.bincount([folds[group] for group in np.unique(groups)]).tolist() == [2, 2, 2, 2]


def test_two_groups_are_never_in_one_fold() -> None:
    groups = np.array([0, 0, 0, 0, 4, 4, 4, 4])
    assert all(len(set(folds_of(8, 5, seed, groups))) == 2 for seed in range(20))


def test_whole_groups_are_held_out_as_far_as_they_fit() -> None:
    groups = np.repeat([0, 6, 8, 11, 12, 13, 14], [6, 2, 3, 1, 1, 1, 1])
    drawn = set()
    for seed in range(40):
        rows = held_out_rows(15, 4, seed, groups)
        assert 2 <= len(rows) <= 4
        assert set(groups[rows]).isdisjoint(np.delete(groups, rows))
        drawn |= set(rows.tolist())
    assert drawn == set(range(6, 15))  # six do not fit


def test_where_no_group_fits_the_smallest_are_held_out() -> None:
    groups = np.repeat([0, 5, 9], [5, 4, 6])
    rows = held_out_rows(15, 3, 0, groups)
    assert rows.tolist() == list(range(9))
