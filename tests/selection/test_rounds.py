"""Near-duplicates and groups, with the plainest strategies."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lloss.errors import ScoresError, SelectionError, SettingsError
from lloss.selection import SelectionSettings
from lloss.selection.strategies import STRATEGIES, Candidates, Picks
from lloss.selection.strategies.top import Top

from .score_tables import score_table, select_from


def _grouped(groups: list[Any] | pa.Array, name: str = "site") -> pa.Table:
    """Losses fall from row to row."""
    return score_table(np.arange(len(groups), 0.0, -1)).append_column(name, pa.array(groups))


def _rows(ids: list[str]) -> list[int]:
    return [int(id[:4]) for id in ids]


def test_top_takes_the_best_of_each_set_of_copies() -> None:
    """Many more copies than K, so that it is asked for more several times."""
    vectors = np.repeat(np.eye(5), 100, 0)
    table = score_table(np.arange(500, 0.0, -1), vectors=vectors)
    picks = select_from(table, k=4, strategy="top", min_distance=0.5)
    assert _rows(picks.ids) == [0, 100, 200, 300]
    assert (picks.duplicates, picks.eligible) == (297, 500)
    picks = select_from(table, ["0040.jpg"], k=4, strategy="top", min_distance=0.5)
    assert _rows(picks.ids) == [100, 200, 300, 400]
    assert picks.duplicates == 99 + 3 * 99 and picks.labeled == 1
    with pytest.raises(SelectionError, match=r"k = 5, but 4 images .* lower k or the distance"):
        select_from(table, ["0040.jpg"], k=5, strategy="top", min_distance=0.5)
    every = [f"{row:04d}.jpg" for row in range(0, 500, 100)]
    with pytest.raises(SelectionError, match="k = 1, but no images are left at least"):
        select_from(table, every, k=1, strategy="top", min_distance=0.5, at_most=True)


def test_a_pick_exactly_at_the_distance_is_no_near_duplicate() -> None:
    table = score_table([3.0, 2.0, 1.0], vectors=[[1, 0], [0, 1], [-1, 0]])
    assert _rows(select_from(table, k=2, min_distance=1).ids) == [0, 1]
    assert _rows(select_from(table, k=2, min_distance=1.5).ids) == [0, 2]
    with pytest.raises(SelectionError, match="k = 3, but 2 images"):
        select_from(table, k=3, min_distance=1.5)


def test_images_without_a_usable_embedding_are_left_out_and_counted() -> None:
    vectors = np.array([[np.nan, 1], [1, 0], [0, 1]])
    picks = select_from(score_table([3.0, 2.0, 1.0], vectors=vectors), k=2, min_distance=0.1)
    assert _rows(picks.ids) == [1, 2] and picks.unspread == 1
    with pytest.raises(ScoresError, match="no column 'embedding'"):
        select_from(score_table([3.0, 2.0]), k=1, min_distance=0.1)


def test_the_error_says_whether_distance_or_embeddings_leave_too_few() -> None:
    vectors = np.array([[np.nan, 1], [1, 0], [0, 1], [0, 1]])
    table = score_table([4.0, 3.0, 2.0, 1.0], vectors=vectors)
    with pytest.raises(SelectionError, match=r"2 images are left .* each other \(1 with a NaN"):
        select_from(table, k=3, min_distance=0.1)
    broken = r"1 of 3 candidates has a NaN, .*choose --strategy top, without a distance"
    with pytest.raises(SelectionError, match=broken):
        select_from(table.slice(0, 3), k=3, min_distance=0.1)


@pytest.mark.parametrize("value", [-0.1, 2.1, float("nan"), float("inf")])
def test_a_distance_that_no_two_images_have(value: float) -> None:
    with pytest.raises(
        SettingsError, match=r"min_distance .*: give a cosine distance, from 0 to 2"
    ):
        SelectionSettings(k=1, min_distance=value)


def test_shares_are_equal_and_ranks_take_turns() -> None:
    table = _grouped(["day"] * 50 + ["night"] * 50 + ["dusk"] * 2)
    picks = select_from(table, k=12, balance="site")
    assert picks.groups == {"day": (5, 50), "dusk": (2, 2), "night": (5, 50)}
    assert _rows(picks.ids) == [0, 100, 50, 1, 101, 51, 2, 52, 3, 53, 4, 54]
    said = "balanced by site: 5 of 50 in 'day'; 2 of 2 in 'dusk'; 5 of 50 in 'night'"
    assert picks.remarks() == [said]
    assert select_from(table, k=102, balance="site").groups["dusk"] == (2, 2)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array([2.0, 2.0, 0.0, np.nan], np.float32), ["(none)", "0", "2"]),
        ([7, 8, 8, 7], ["7", "8"]),
        (["", "x", None, "x"], ["(none)", "x"]),
        (["(none)", "'(none)'", None, "x"], ["''(none)''", "'(none)'", "(none)", "x"]),
        ([True, False, None, None], ["(none)", "false", "true"]),
        ([date(2024, 5, 1), date(2024, 5, 2)] * 2, ["2024-05-01", "2024-05-02"]),
        (pa.array(["x", "y", "x", None]).dictionary_encode(), ["(none)", "x", "y"]),
    ],
)
def test_groups_are_classes_names_numbers_or_dates(values: Any, names: list[str]) -> None:
    picks = select_from(_grouped(values), k=4, balance="site")
    assert list(picks.groups) == names


def test_the_classes_predicted() -> None:
    table = _grouped(np.array([1.0] * 8 + [0.0] * 2), "prediction")
    picks = select_from(table, k=4, balance="predicted")
    assert picks.groups == {"0": (2, 2), "1": (2, 8)}
    with pytest.raises(ScoresError, match="no column 'prediction'"):
        select_from(score_table([1.0]), k=1, balance="predicted")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 1.0], "balance 'site': holds 0.5; groups are names or whole numbers"),
        ([1.0, float("inf")], "balance 'site': holds inf"),
        ([[1], [2]], "balance 'site': holds list<.*>, not groups"),
    ],
)
def test_columns_that_are_no_groups(values: list[Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        select_from(_grouped(values), k=1, balance="site")


def test_fewer_picks_than_groups() -> None:
    table = _grouped([f"s{row % 40}" for row in range(400)])
    picks = select_from(table, k=7, balance="site", seed=2)
    assert len({row % 40 for row in _rows(picks.ids)}) == 7
    (remark,) = picks.remarks()
    assert remark == "balanced by site: 0 to 1 of each of 40 groups (33 groups have none)"
    others = select_from(table, k=7, balance="site", seed=3)
    assert {row % 40 for row in _rows(others.ids)} != {row % 40 for row in _rows(picks.ids)}


def test_a_sub_pool_is_drawn_before_its_groups_are_counted() -> None:
    table = _grouped(["a", "b"] * 100)
    picks = select_from(table, k=10, balance="site", subset=30)
    assert sum(size for _, size in picks.groups.values()) == picks.eligible == 30
    assert {count for count, _ in picks.groups.values()} == {5}


def test_too_few_images_in_all_groups() -> None:
    table = _grouped(["a", "b", "b"])
    with pytest.raises(SelectionError, match="k = 4, but 3 images are left"):
        select_from(table, k=4, balance="site")
    assert len(select_from(table, k=4, balance="site", at_most=True)) == 3
    with pytest.raises(SelectionError, match="k = 1, but no images are left"):
        select_from(table.slice(0, 0), k=1, balance="site")


class _Careless(Top):
    """Of an installed package, say."""

    def __init__(self, rows: list[int], reasons: int) -> None:
        self._picks = Picks(np.array(rows), [""] * reasons)

    def choose(self, candidates: Candidates, k: int) -> Picks:
        return self._picks


@pytest.mark.parametrize(
    ("rows", "reasons"), [([0, 0], 2), ([0], 1), ([0, 3], 2), ([-1, 0], 2), ([0, 1], 1)]
)
def test_a_strategy_that_breaks_its_promise_is_refused(
    monkeypatch: pytest.MonkeyPatch, rows: list[int], reasons: int
) -> None:
    monkeypatch.setitem(STRATEGIES, "top", _Careless(rows, reasons))
    with pytest.raises(SelectionError, match=r"strategy 'top': chose . different .* not 2 of the"):
        select_from(score_table([3.0, 2.0, 1.0]), k=2)


def test_many_rows_of_many_groups_stream() -> None:
    """More rows of a group than are held at once."""
    random = np.random.default_rng(0)
    count = 40_000
    scores, sites = random.permutation(count) * 1.0, random.integers(0, 30, count)
    ids = [f"{row:06d}" for row in range(count)]
    table = score_table(scores, ids).append_column("site", pa.array(sites))
    table = pa.Table.from_batches(table.to_batches(max_chunksize=3_333))
    picks = select_from(table, k=90, balance="site")
    for site in range(30):
        best = np.flatnonzero(sites == site)[np.argsort(-scores[sites == site])[:3]]
        assert [row for row in map(int, picks.ids) if sites[row] == site] == best.tolist()
